/** Generated messages about limits, money and machines into our own values. */

import type * as data from "./admin-data.js";
import type * as clusterPb from "./gen/quorate/v1/cluster_pb.js";
import * as pricePb from "./gen/quorate/v1/price_pb.js";
import * as quotaPb from "./gen/quorate/v1/quota_pb.js";
import { numberSet, ofWord, set, time, timeSet, usage, wordOf } from "./wire.js";

const LIMIT_KINDS: Readonly<Record<Exclude<data.LimitKind, "unknown">, quotaPb.LimitKind>> = {
  budget: quotaPb.LimitKind.BUDGET,
  rate: quotaPb.LimitKind.RATE,
  holding: quotaPb.LimitKind.HOLDING,
  weight: quotaPb.LimitKind.WEIGHT,
};
const GROUPS: Readonly<Record<data.CostGroup, pricePb.CostGroup>> = {
  project: pricePb.CostGroup.BY_PROJECT,
  agent: pricePb.CostGroup.BY_AGENT,
  model: pricePb.CostGroup.BY_MODEL,
  task: pricePb.CostGroup.BY_TASK,
  day: pricePb.CostGroup.BY_DAY,
};

export const groupToWire = (name: string) => ofWord(GROUPS, name);
export const GROUP_NAMES = Object.keys(GROUPS).join(", ");

function limit(it: quotaPb.Limit): data.Limit {
  return {
    limit: numberSet(it.limit) ?? null,
    used: Number(it.used),
    reserved: Number(it.reserved),
    kind: wordOf(LIMIT_KINDS, it.kind) ?? "unknown",
    windowStart: timeSet(it.windowStartMs),
    windowEnd: timeSet(it.windowEndMs),
    overage: Number(it.overage),
  };
}

export function quota(it: quotaPb.Quota): data.Quota {
  const { path, etag, reason, author, wouldWait } = it;
  const limits = Object.fromEntries(it.limits.map((one) => [one.key, limit(one)]));
  return { path, limits, etag, reason, author, updateTime: timeSet(it.updateTimeMs), wouldWait };
}

/** Undefined for a kind that only a newer cluster knows. */
export function quotaEvent(it: quotaPb.QuotaEvent): data.QuotaEvent | undefined {
  switch (it.kind.case) {
    case "quota":
      return { kind: "quota", quota: quota(it.kind.value) };
    case "audit":
      return { kind: "audit", audit: auditEvent(it.kind.value) };
    case undefined:
      return undefined;
  }
}

export function auditEvent(it: clusterPb.AuditEvent): data.AuditEvent {
  const { action, subject, change, reason } = it;
  return { number: Number(it.number), time: time(it.atMs), author: set(it.author), action, subject, change, reason };
}

export function price(it: pricePb.Price): data.Price {
  const { model, etag, reason, author } = it;
  const amounts = { input: Number(it.input), cached: Number(it.cached), output: Number(it.output) };
  return { model, ...amounts, etag, reason, author, updateTime: timeSet(it.updateTimeMs) };
}

export function costs(it: pricePb.QueryCostResponse): data.Costs {
  return { lines: it.lines.map(costLine), total: costLine(it.total) };
}

function costLine(it: pricePb.CostLine | undefined): data.CostLine {
  return {
    key: it?.key ?? "",
    tasks: Number(it?.tasks ?? 0),
    steps: Number(it?.steps ?? 0),
    usage: usage(it?.usage),
    newTokens: Number(it?.newTokens ?? 0),
    knownTokens: Number(it?.knownTokens ?? 0),
    kvBlockSeconds: Number(it?.kvBlockSeconds ?? 0),
    toolCalls: Number(it?.toolCalls ?? 0),
  };
}

export function clusterStatus(it: clusterPb.ClusterStatus): data.ClusterStatus {
  const { clusterId, voters, learners, answeredBy, stateHash, copies, featureLevel, warnings } = it;
  const tasksByState = Object.fromEntries(Object.entries(it.tasksByState).map(([state, count]) => [state, Number(count)]));
  return {
    clusterId,
    leader: set(it.leader),
    term: Number(it.term),
    appliedIndex: Number(it.appliedIndex),
    committedIndex: Number(it.committedIndex),
    voters,
    learners,
    answeredBy,
    stateHash,
    stateHashIndex: Number(it.stateHashIndex),
    copies,
    featureLevel,
    tasksByState,
    warnings,
  };
}

function engine(it: clusterPb.Engine): data.Engine {
  const { model, modelDigest, numericsId, kernels } = it;
  return {
    model,
    modelDigest,
    numericsId,
    window: Number(it.window),
    kernels,
    kvBlocks: Number(it.kvBlocks),
    kvBlocksUsed: Number(it.kvBlocksUsed),
    kvBytes: Number(it.kvBytes),
    weightBytes: Number(it.weightBytes),
    tokensComputed: Number(it.tokensComputed),
    tokensCached: Number(it.tokensCached),
    tokensGenerated: Number(it.tokensGenerated),
    kvTiers: Object.fromEntries(it.kvTiers.map((tier) => [tier.tier, Number(tier.bytes)])),
  };
}

function device(it: clusterPb.Device | undefined): data.Device {
  return {
    cpus: it?.cpus,
    memoryBytes: numberSet(it?.memoryBytes),
    memoryFreeBytes: numberSet(it?.memoryFreeBytes),
    rssBytes: numberSet(it?.rssBytes),
    cpuPressureMilli: it?.cpuPressureMilli,
    memoryPressureMilli: it?.memoryPressureMilli,
    gpus: it?.gpus.map(gpu) ?? [],
  };
}

function gpu(it: clusterPb.Gpu): data.Gpu {
  const { uuid, name, utilizationPercent, powerMilliwatts, temperatureCelsius } = it;
  const memory = { memoryTotalBytes: numberSet(it.memoryTotalBytes), memoryUsedBytes: numberSet(it.memoryUsedBytes) };
  return { uuid, name, ...memory, utilizationPercent, powerMilliwatts, temperatureCelsius };
}

export function node(it: clusterPb.Node): data.Node {
  const { id, name, roles, state, clientAddr, internalAddr, running, slots, version } = it;
  return {
    id,
    name,
    roles,
    state,
    clientAddr,
    internalAddr,
    running,
    slots,
    fencedCommits: Number(it.fencedCommits),
    engines: it.engines.map(engine),
    segments: Number(it.segments),
    segmentBytes: Number(it.segmentBytes),
    contextBytesReceived: Number(it.contextBytesReceived),
    contextBytesSent: Number(it.contextBytesSent),
    contextBytesFull: Number(it.contextBytesFull),
    device: device(it.device),
    version,
  };
}

export function model(it: clusterPb.Model): data.Model {
  const { name, digest, holders } = it;
  return { name, digest, bytes: Number(it.bytes), holders };
}
