package import KVCache
import Parallelism
import Synchronization

/// Remote caches represent the caches of other processes in the first process. Orders about their entries and steps are
/// one sequence: a process packs entries before it runs a later step that overwrites them, and places entries before it
/// runs a later step that reads them.
final class RemoteCaches: Sendable {
    private let processes: Processes
    private let epoch: UInt64
    /// Is called with a process whose reply is wrong, and with what is wrong.
    private let fail: @Sendable (Int, String) -> Void
    private let state = Mutex(State())
    /// True once the ranks were told to stop, after which their processes take no orders about entries. It is held while
    /// an order is sent, and not while replies are read.
    private let isClosed = Mutex(false)

    private struct State {
        var nextNumber: UInt64 = 0
        /// The orders that were not answered yet, by their numbers.
        var orders: [UInt64: Sent] = [:]
        /// The number of bytes in these orders.
        var placingBytes = 0
    }

    private struct Sent {
        let process: Int
        /// The number of bytes of the reply.
        let bytes: Int
        /// The number of bytes in the order.
        var placed = 0
        let done: @Sendable ([UInt8]) -> Void
    }

    init(_ processes: Processes, epoch: UInt64, _ fail: @escaping @Sendable (Int, String) -> Void) {
        self.processes = processes
        self.epoch = epoch
        self.fail = fail
    }

    /// Begins to read replies.
    func start() {
        processes.read(.entries) { [weak self] message, process in
            guard let self, message.epoch == epoch else { return }
            guard let reply = try? Wire.value(CacheReply.self, in: message.bodyCopy), take(reply, from: process) else {
                return fail(process, "process \(process) sent entries that it was not asked for")
            }
        }
    }

    /// Takes no orders from now on. Those that it has sent are answered before the ranks stop.
    func close() { isClosed.withLock { $0 = true } }

    /// True if orders may no longer be answered: the ranks were told to stop.
    var hasClosed: Bool { isClosed.withLock { $0 } }

    /// The number of bytes that other processes were given and have not written yet, as far as is known.
    var placingBytes: Int { state.withLock { $0.placingBytes } }

    /// Asks a process for entries, of which there are `bytes` bytes.
    ///
    /// - Parameter done: receives the bytes, on a thread that must not wait. It is not called if the process is lost, or the
    ///   ranks were told to stop.
    func pack(_ entries: [CacheEntries], bytes: Int, in process: Int, _ done: @escaping @Sendable ([UInt8]) -> Void) {
        let number = enter(Sent(process: process, bytes: bytes, done: done))
        order(.pack(CacheOrder(number, entries)), process)
    }

    /// Gives a process the bytes of entries to write.
    ///
    /// - Parameter done: is called when they are written, on a thread that must not wait. It is not called if the process
    ///   is lost, or the ranks were told to stop.
    func place(_ bytes: [UInt8], as entries: [CacheEntries], in process: Int, _ done: @escaping @Sendable () -> Void) {
        let number = enter(Sent(process: process, bytes: 0, placed: bytes.count) { _ in done() })
        order(.place(CacheOrder(number, entries, bytes: bytes)), process)
    }

    private func enter(_ sent: Sent) -> UInt64 {
        state.withLock { state in
            state.orders[state.nextNumber] = sent
            state.placingBytes += sent.placed
            state.nextNumber += 1
            return state.nextNumber - 1
        }
    }

    private func order(_ order: Order, _ process: Int) {
        let message = Message(.order, epoch: epoch, body: order.bytes)
        isClosed.withLock { if !$0 { processes.send(message, to: process) } }
    }

    /// Returns whether the reply is to an order that the process got.
    private func take(_ reply: CacheReply, from process: Int) -> Bool {
        let sent: Sent? = state.withLock { state in
            guard let sent = state.orders[reply.number], sent.process == process, sent.bytes == reply.bytes.count else {
                return nil
            }
            state.orders[reply.number] = nil
            state.placingBytes -= sent.placed
            return sent
        }
        sent?.done(reply.bytes)
        return sent != nil
    }
}

/// The KV caches of a server's processes, as the first process reaches them.
package struct ServerCaches: Sendable {
    /// The cache of the first process.
    package let local: CacheStore
    private let remote: RemoteCaches?
    private let alarm: Alarm
    private let stored: StoredLayers

    /// - Parameters:
    ///   - alarm: the alarm of the ranks.
    ///   - stored: the layers whose keys the ranks of the first process have stored.
    init(_ local: CacheStore, _ remote: RemoteCaches?, _ alarm: Alarm, _ stored: StoredLayers) {
        self.local = local
        self.remote = remote
        self.alarm = alarm
        self.stored = stored
    }

    /// True if the ranks have failed or were told to stop, so that what other processes were asked for may never come.
    package var haveEnded: Bool { alarm.failure != nil || remote?.hasClosed ?? false }

    /// The number of bytes that other processes were given to write and have not confirmed.
    package var placingBytes: Int { remote?.placingBytes ?? 0 }

    /// Returns the number of layers, from the first one on, of which the first process has all entries that it keeps of a
    /// step's rows in a data group. They are final, while the step may still compute later layers. Where the step is over,
    /// the number may be that of all layers or more.
    package func storedLayers(of step: Int, group: Int) -> Int { stored.count(step: step, group: group) }

    /// Asks for a call of `TransferPartner.keysAreStored` when `storedLayers` has grown. Whoever waits for it must call
    /// `storedLayers` after this.
    package func awaitStoredLayers() { stored.awaitMore() }

    /// Packs some of a request's entries that a process keeps, as `CacheStore.pack` does. It must be called under the
    /// engine's lock, while the request holds their pages and after their steps have finished or, in the first process,
    /// their layers are stored; the pages may be given up before `done` is called.
    ///
    /// - Parameter done: receives the bytes: those of the first process at once, those of others later, on a thread that
    ///   must not wait. It is not called if the process is lost, or the ranks were told to stop (`haveEnded`).
    package func pack(
        _ entries: [CacheEntries], in process: Int, _ done: @escaping @Sendable ([UInt8]) -> Void
    ) {
        let length = local.format.bytes(of: entries)
        guard process == 0 else { return remote!.pack(entries, bytes: length, in: process, done) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(length)
        guard local.pack(entries, into: &bytes) else {
            preconditionFailure("entries are to be sent that the first process does not keep")
        }
        done(bytes)
    }

    /// Writes some of a request's entries that a process keeps, as `CacheStore.unpack` does. It must be called under the
    /// engine's lock, while the request holds their pages; every step that is planned later reads what was written.
    ///
    /// - Parameter done: is called when they are written: at once in the first process, later in others, on a thread that
    ///   must not wait. It is not called if the process is lost or the ranks were told to stop (`haveEnded`), or in the
    ///   first process if nothing is written.
    /// - Returns: false if the first process does not keep one of the entries, or there are not exactly as many bytes.
    ///   Another process would end the job instead.
    package func place(
        _ bytes: [UInt8], as entries: [CacheEntries], in process: Int, _ done: @escaping @Sendable () -> Void
    ) -> Bool {
        guard process == 0 else {
            guard bytes.count == local.format.bytes(of: entries) else { return false }
            remote!.place(bytes, as: entries, in: process, done)
            return true
        }
        guard local.unpack(bytes, as: entries) else { return false }
        done()
        return true
    }
}
