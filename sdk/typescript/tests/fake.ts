/** A node in this process: it answers what it was told to, and remembers what it was asked. */

import { once } from "node:events";
import { createServer, connect, type AddressInfo, type Server as TcpServer, type Socket } from "node:net";
import { create, fromBinary, toBinary, type DescMethod, type DescService, type Message } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata, Server, ServerCredentials, status, type ServerUnaryCall, type ServerWritableStream, type sendUnaryData } from "@grpc/grpc-js";
import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "../src/gen/quorate/sdk/error_details_pb.js";
import { AgentService } from "../src/gen/quorate/v1/agent_pb.js";
import { ClusterService } from "../src/gen/quorate/v1/cluster_pb.js";
import { ContextService } from "../src/gen/quorate/v1/context_pb.js";
import { MemoryService } from "../src/gen/quorate/v1/memory_pb.js";
import { PriceBookService } from "../src/gen/quorate/v1/price_pb.js";
import { QuotaService } from "../src/gen/quorate/v1/quota_pb.js";
import { TaskService } from "../src/gen/quorate/v1/task_pb.js";

const SERVICES: DescService[] = [AgentService, ClusterService, ContextService, MemoryService, PriceBookService, QuotaService, TaskService];

/** What a call meets: an answer, a refusal, a cut line, silence; in streams also the end in good order. */
export type Step =
  | { answer: Record<string, unknown> }
  | { refuse: { code: status; message?: string; reason?: string; metadata?: Record<string, string>; retryMs?: number; bare?: boolean } }
  | "cut"
  | "silence"
  | "end";

export interface Asked {
  method: string;
  request: Record<string, unknown>;
  authorization: string | undefined;
}

/** Messages of any type: what is asked and answered is known by the method alone. */
type Wire = Message;

export class Fake {
  /** What the next calls meet, by method; without it a call is answered with an empty message, a stream ends. */
  readonly plan = new Map<string, Step[][]>();
  readonly asked: Asked[] = [];
  /** Streams that the client gave back. */
  left = 0;
  readonly #server = new Server();
  readonly #line = new Line();

  static async start(credentials = ServerCredentials.createInsecure()): Promise<Fake> {
    const fake = new Fake();
    for (const service of SERVICES) service.methods.forEach((method) => fake.#register(method));
    const port = await new Promise<number>((resolve, reject) => {
      fake.#server.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error ? reject(error) : resolve(bound)));
    });
    await fake.#line.open(port);
    return fake;
  }

  get address(): string {
    return this.#line.address;
  }

  next(method: string, ...steps: Step[]): this {
    this.plan.set(method, [...(this.plan.get(method) ?? []), steps]);
    return this;
  }

  requests(method: string): Record<string, unknown>[] {
    return this.asked.filter((it) => it.method === method).map((it) => it.request);
  }

  /** Breaks the connections that there are; new ones are taken. */
  cut(): void {
    this.#line.cut();
  }

  stop(): void {
    this.#line.close();
    this.#server.forceShutdown();
  }

  #register(method: DescMethod): void {
    const path = `/${method.parent.typeName}/${method.name}`;
    const read = (bytes: Buffer) => fromBinary(method.input, bytes);
    const write = (init: Wire) => Buffer.from(toBinary(method.output, create(method.output, init)));
    if (method.methodKind === "unary") {
      this.#server.register(path, (call: ServerUnaryCall<Wire, Wire>, done: sendUnaryData<Wire>) => this.#unary(method, call, done), write, read, "unary");
    } else if (method.methodKind === "server_streaming") {
      this.#server.register(path, (call: ServerWritableStream<Wire, Wire>) => this.#stream(method, call), write, read, "serverStream");
    }
  }

  #note(method: DescMethod, call: { request: unknown; metadata: Metadata }): Step[] {
    const [authorization] = call.metadata.get("authorization");
    this.asked.push({ method: method.name, request: call.request as unknown as Record<string, unknown>, authorization: authorization?.toString() });
    return this.plan.get(method.name)?.shift() ?? [];
  }

  #unary(method: DescMethod, call: ServerUnaryCall<Wire, Wire>, done: sendUnaryData<Wire>): void {
    const [step = { answer: {} }] = this.#note(method, call);
    if (step === "cut") this.#line.cut();
    else if (typeof step === "string") return;
    else if ("refuse" in step) done(refusal(step.refuse));
    else done(null, step.answer as unknown as Wire);
  }

  #stream(method: DescMethod, call: ServerWritableStream<Wire, Wire>): void {
    const steps = this.#note(method, call);
    call.sendMetadata(new Metadata());
    call.on("cancelled", () => (this.left += 1));
    for (const step of steps) {
      if (step === "silence") return;
      if (step === "end") break;
      if (step === "cut") return this.#line.cut();
      if ("refuse" in step) return void call.emit("error", refusal(step.refuse));
      call.write(step.answer as unknown as Wire);
    }
    call.end();
  }
}

function refusal(given: Extract<Step, { refuse: unknown }>["refuse"]) {
  const metadata = new Metadata();
  const info = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: given.reason ?? "", domain: "quorate", metadata: given.metadata ?? {} }));
  const ms = given.retryMs ?? 0;
  const retry = anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: { seconds: BigInt(Math.floor(ms / 1_000)), nanos: (ms % 1_000) * 1_000_000 } }));
  const told = given.retryMs === undefined ? [info] : [info, retry];
  // The SDK's own package holds google.rpc's messages, so that the names differ.
  const details = told.map((any) => ({ ...any, typeUrl: any.typeUrl.replace("quorate.sdk", "google.rpc") }));
  if (!given.bare) metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, create(StatusSchema, { details }))));
  return Object.assign(new Error(given.message ?? "refused"), { code: given.code, details: given.message ?? "refused", metadata });
}

/** A line to a port that can be cut. */
class Line {
  #server: TcpServer | undefined;
  readonly #sockets = new Set<Socket>();

  async open(port: number): Promise<void> {
    this.#server = createServer((client) => {
      const node = connect(port, "127.0.0.1");
      for (const socket of [client, node]) {
        this.#sockets.add(socket);
        socket.on("error", () => undefined).on("close", () => this.#sockets.delete(socket));
      }
      client.pipe(node).pipe(client);
      client.on("close", () => node.destroy());
      node.on("close", () => client.destroy());
    }).listen(0, "127.0.0.1");
    await once(this.#server, "listening");
  }

  get address(): string {
    return `127.0.0.1:${(this.#server?.address() as AddressInfo).port}`;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  close(): void {
    this.#server?.close();
    this.cut();
  }
}

