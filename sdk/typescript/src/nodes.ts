/** Connections to nodes, each made when it is first asked. */

import { setTimeout as pause } from "node:timers/promises";
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  Client as Connection,
  connectivityState as State,
  credentials,
  type ClientUnaryCall,
  type ServiceError,
} from "@grpc/grpc-js";
import { endedHere, Failed, failureOf, type Failure } from "./failures.js";
import { closed, type Settings } from "./settings.js";
import { Stream } from "./stream.js";

/** A machine that is off answers nothing at all; the next one should be tried soon. */
const CONNECT_MS = 2_000;

interface Cancellable {
  cancel(): void;
}

export class Nodes {
  readonly #settings: Settings;
  readonly #connections = new Map<number, Connection>();
  readonly #underWay = new Set<Cancellable>();
  #closed = false;

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  /** One attempt at one node. */
  async unary<I extends DescMessage, O extends DescMessage>(
    node: number,
    method: DescMethodUnary<I, O>,
    init: MessageInitShape<I>,
    patienceMs: number,
  ): Promise<MessageShape<O>> {
    const until = Date.now() + patienceMs;
    const connection = await this.#connected(node, patienceMs);
    const request = create(method.input, init);
    return new Promise((resolve, reject) => {
      const call: ClientUnaryCall = connection.makeUnaryRequest(
        pathOf(method),
        (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        request,
        this.#settings.metadata,
        { deadline: until },
        (raised: ServiceError | null, answer?: MessageShape<O>) => {
          this.#underWay.delete(call);
          if (raised === null && answer !== undefined) resolve(answer);
          else reject(new Failed(raised ? failureOf(raised) : endedHere("lost", "the node gave an empty answer")));
        },
      );
      this.#underWay.add(call);
    });
  }

  /** Opens a stream at one node; it has been accepted when this returns. `timeoutMs` undefined: for as long as it goes. */
  async stream<I extends DescMessage, O extends DescMessage>(
    node: number,
    method: DescMethodServerStreaming<I, O>,
    init: MessageInitShape<I>,
    patienceMs: number,
    timeoutMs: number | undefined,
  ): Promise<Stream<MessageShape<O>>> {
    const deadline = timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
    const connection = await this.#connected(node, patienceMs);
    const call = connection.makeServerStreamRequest(
      pathOf(method),
      (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
      (bytes: Buffer) => fromBinary(method.output, bytes),
      create(method.input, init),
      this.#settings.metadata,
      deadline,
    );
    this.#underWay.add(call);
    call.once("status", () => this.#underWay.delete(call));
    const stream = new Stream<MessageShape<O>>(call);
    await stream.accepted(patienceMs);
    return stream;
  }

  /** Waits before the node is asked again; less when it could not be reached and takes a connection now. */
  async rest(node: number, failure: Failure, waitMs: number): Promise<void> {
    if (waitMs <= 0) return;
    if (failure.kind !== "notSent") await pause(waitMs);
    else await until(this.#connection(node), waitMs, (state) => state === State.READY);
  }

  close(): void {
    this.#closed = true;
    for (const call of this.#underWay) call.cancel();
    for (const connection of this.#connections.values()) connection.close();
  }

  /** The connection, once it is there or gRPC can say at once why it is not. */
  async #connected(node: number, patienceMs: number): Promise<Connection> {
    const connection = this.#connection(node);
    const decided = (state: State) => state !== State.IDLE && state !== State.CONNECTING;
    const waitMs = Math.min(patienceMs, CONNECT_MS);
    if (await until(connection, waitMs, decided)) return this.#connection(node);
    const { address } = this.#settings.endpoints.at(node);
    throw new Failed(endedHere("notSent", `${address} took no connection within ${Math.round(waitMs)} ms`));
  }

  #connection(node: number): Connection {
    if (this.#closed) throw closed();
    const known = this.#connections.get(node);
    if (known !== undefined) return known;
    const { address, tls } = this.#settings.endpoints.at(node);
    const secure = tls ? this.#settings.tls : undefined;
    const made = new Connection(address, secure ?? credentials.createInsecure(), this.#settings.channel);
    this.#connections.set(node, made);
    return made;
  }
}

/** True as soon as the connection is in such a state, which it is asked to reach; false when the time is over. */
async function until(connection: Connection, waitMs: number, wanted: (state: State) => boolean): Promise<boolean> {
  const channel = connection.getChannel();
  const deadline = Date.now() + waitMs;
  for (;;) {
    const state = channel.getConnectivityState(true);
    if (wanted(state)) return true;
    if (state === State.SHUTDOWN) throw closed();
    const changed = await new Promise<boolean>((resolve) => {
      channel.watchConnectivityState(state, deadline, (over) => resolve(over === undefined));
    });
    if (!changed) return false;
  }
}

function pathOf(method: { parent: { typeName: string }; name: string }): string {
  return `/${method.parent.typeName}/${method.name}`;
}
