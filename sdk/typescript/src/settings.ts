/** What a client is made of: where the cluster is, who asks, and how connections behave. Opens nothing but files. */

import { readFileSync } from "node:fs";
import { credentials, Metadata, type ChannelCredentials, type ChannelOptions } from "@grpc/grpc-js";
import { Course } from "./course.js";
import { DEFAULT_PORT, parseEndpoints, type Endpoints } from "./endpoints.js";
import { local, refused, type QuorateError } from "./errors.js";
import { projectName } from "./requests.js";
import { DEFAULT_POLICY, type Policy } from "./retry.js";

export const VERSION = "0.1.0";

export interface ClientOptions {
  /** Addresses like `127.0.0.1:7400`, as a list or joined by commas; any node will do. Else QUORATE_ENDPOINT. */
  endpoints?: string | readonly string[] | undefined;
  /** What calls are about. Else QUORATE_PROJECT, else `default`. */
  project?: string | undefined;
  /** Sent with every call. Else QUORATE_API_KEY, else none. */
  apiKey?: string | undefined;
  /** PEM file with the cluster's CA; set, every node is asked over TLS. Else QUORATE_CA, else no TLS. */
  ca?: string | undefined;
  /** PEM files of a client certificate and its key. Else QUORATE_CERT and QUORATE_CERT_KEY, else none. */
  cert?: string | undefined;
  certKey?: string | undefined;
  /** Milliseconds that one call may take, with all its attempts: 30,000. */
  timeoutMs?: number | undefined;
  /** Milliseconds to look for any node that takes a connection: 10,000. */
  connectTimeoutMs?: number | undefined;
}

export interface Settings {
  readonly endpoints: Endpoints;
  readonly project: string;
  readonly policy: Policy;
  readonly metadata: Metadata;
  readonly tls: ChannelCredentials | undefined;
  readonly channel: ChannelOptions;
}

const CHANNEL: ChannelOptions = {
  "grpc.primary_user_agent": `quorate-typescript/${VERSION}`,
  // Full pages of tasks with inline results are above gRPC's default of 4 MiB.
  "grpc.max_receive_message_length": 80 << 20,
  // Repetition is ours alone: it keeps the request id and goes to the next node.
  "grpc.enable_retries": 0,
  // Nodes are named directly; a proxy meant for the web must not get their traffic.
  "grpc.enable_http_proxy": 0,
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 1_000,
  // Clients of one process do not wait for each other's lost connections.
  "grpc.use_local_subchannel_pool": 1,
  // A frozen process keeps its connections open; only an unanswered ping tells.
  "grpc.keepalive_time_ms": 2_000,
  "grpc.keepalive_timeout_ms": 3_000,
};

export function courseOf(settings: Settings, requestId?: string, timeoutMs?: number): Course {
  const patient = timeoutMs === undefined ? {} : { deadlineMs: timeoutMs, attemptMs: timeoutMs };
  return new Course(settings.endpoints, { ...settings.policy, ...patient }, requestId);
}

/** What is not given comes from the environment, else from the defaults. */
export function readSettings(options: ClientOptions, environment: NodeJS.ProcessEnv = process.env): Settings {
  const setIn = (name: string) => environment[name]?.trim() || undefined;
  const ca = options.ca ?? setIn("QUORATE_CA");
  const cert = options.cert ?? setIn("QUORATE_CERT");
  const certKey = options.certKey ?? setIn("QUORATE_CERT_KEY");
  const apiKey = options.apiKey ?? setIn("QUORATE_API_KEY");
  const given = options.endpoints ?? setIn("QUORATE_ENDPOINT") ?? `127.0.0.1:${DEFAULT_PORT}`;
  const endpoints = parseEndpoints(given, ca !== undefined);
  return {
    endpoints,
    project: projectName(options.project ?? setIn("QUORATE_PROJECT") ?? "default"),
    policy: policyOf(options),
    metadata: metadataOf(apiKey),
    tls: tlsOf(endpoints.nodes.some((node) => node.tls), ca, cert, certKey),
    channel: CHANNEL,
  };
}

function policyOf(options: ClientOptions): Policy {
  const deadlineMs = Math.max(1, options.timeoutMs ?? DEFAULT_POLICY.deadlineMs);
  const unreachableMs = Math.max(1, options.connectTimeoutMs ?? DEFAULT_POLICY.unreachableMs);
  return { ...DEFAULT_POLICY, deadlineMs, unreachableMs };
}

/** The key is never shown: messages end in logs. */
function metadataOf(apiKey: string | undefined): Metadata {
  const metadata = new Metadata();
  if (apiKey === undefined) return metadata;
  if (!/^[!-~]+$/.test(apiKey)) {
    const next = "give the key as the cluster printed it, without line ends";
    throw refused("BAD_API_KEY", "the API key is empty, or has characters that no key has", next);
  }
  metadata.set("authorization", `Bearer ${apiKey}`);
  return metadata;
}

/** Without a CA the roots that Node brings along count. */
function tlsOf(
  wanted: boolean,
  ca: string | undefined,
  cert: string | undefined,
  certKey: string | undefined,
): ChannelCredentials | undefined {
  if ((cert === undefined) !== (certKey === undefined)) {
    const next = "give `cert` and `certKey`, or QUORATE_CERT and QUORATE_CERT_KEY, together";
    throw refused("BAD_CREDENTIALS", "a certificate and its key belong together", next);
  }
  if (!wanted && cert !== undefined) {
    const next = "give the cluster's CA in `ca` or QUORATE_CA";
    throw refused("BAD_CREDENTIALS", "a certificate cannot be shown over a connection in clear", next);
  }
  if (!wanted) return undefined;
  const root = ca === undefined ? null : pem(ca, "CA", "BAD_CA");
  if (cert === undefined || certKey === undefined) return credentials.createSsl(root);
  return createSsl(root, pem(cert, "certificate", "BAD_CREDENTIALS"), readPem(certKey, "BAD_CREDENTIALS"));
}

function createSsl(root: Buffer | null, cert: Buffer, key: Buffer): ChannelCredentials {
  try {
    return credentials.createSsl(root, key, cert);
  } catch (why) {
    const next = "give a certificate and the key that belongs to it, as PEM files";
    throw refused("BAD_CREDENTIALS", "the certificate and its key can't be used", next, String(why));
  }
}

/** A file without a certificate in it would be taken for one that trusts nobody. */
function pem(file: string, what: string, reason: string): Buffer {
  const bytes = readPem(file, reason);
  if (bytes.includes("-----BEGIN CERTIFICATE-----")) return bytes;
  throw refused(reason, `there is no certificate in the file of the ${what}, ${file}`, "give a PEM file");
}

function readPem(file: string, reason: string): Buffer {
  try {
    return readFileSync(file);
  } catch (why) {
    throw refused(reason, `${file} cannot be read`, "check its path and permissions", String(why));
  }
}

export function closed(): QuorateError {
  return local("FAILED_PRECONDITION", "CLIENT_CLOSED", "the client was closed", "make another client");
}
