import { type AddressInfo, connect, createServer, type Socket } from "node:net";

/** A network between the page and the gateway that can be cut. */
export class Network {
  private readonly sockets = new Set<Socket>();
  private cut = false;
  private readonly server;

  constructor(gateway: string) {
    const { hostname, port } = new URL(gateway);
    this.server = createServer((near) => {
      if (this.cut) return near.destroy();
      const far = connect(Number(port), hostname);
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => {
          this.sockets.delete(socket);
          other.destroy();
        });
        socket.pipe(other);
      }
    });
  }

  /** Where the page finds the gateway. */
  async open(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  /** Nothing arrives any more. */
  unplug(): void {
    this.cut = true;
    for (const socket of this.sockets) socket.destroy();
  }

  /** What is sent from now on arrives, and the browser says so. */
  plug(): void {
    this.cut = false;
    dispatchEvent(new window.Event("online"));
  }

  async close(): Promise<void> {
    this.unplug();
    await new Promise((resolve) => this.server.close(resolve));
  }
}
