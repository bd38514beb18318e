import Foundation
package import Grammar
package import KVCache
package import Modeling
package import Parallelism
import Synchronization

/// A rank follower runs the ranks of every process but the first: it receives the first process's plans, assigns their
/// rows itself, runs its ranks, and sends back their reports.
package final class RankFollower {
    private let model: any Model
    private let processes: Processes
    private let grammars: GrammarCache?
    private let cacheObserver: (CacheStore) -> Void
    private let orders = Orders()
    private var team: Team?
    private var lastEpoch: UInt64 = 0

    /// The ranks of one epoch.
    private struct Team {
        let epoch: UInt64
        let settings: RankSettings
        let cache: CacheStore
        let world: ProcessWorld
        let threads: RankThreads
        /// The lists that earlier plans gave for requests, to which later plans refer.
        var known = KnownLists()
        let grammars: RequestGrammars

        var format: CacheFormat { cache.format }

        /// Ends the step the ranks are in. A first process that leaves sends no more of it, and its clients do not wait
        /// for it.
        func breakOff() {
            world.alarm.raise(GroupFailure(rank: 0, reason: "the job is done"), isNews: false)
        }
    }

    /// - Parameters:
    ///   - grammars: A grammar cache of the same vocabulary as the first process's.
    ///   - cacheObserver: Receives the cache of the process's ranks before they run.
    package init(
        _ model: any Model, _ processes: Processes, grammars: GrammarCache? = nil,
        cacheObserver: @escaping (CacheStore) -> Void = { _ in }
    ) {
        self.cacheObserver = cacheObserver
        precondition(processes.process > 0, "the first process follows nobody")
        self.model = model
        self.processes = processes
        self.grammars = grammars
        processes.read(.order) { [orders] message, process in
            if process == 0 { orders.put(.order(message)) }
        }
        processes.onFailure { [orders] in orders.put(.failure($0)) }
    }

    /// Executes the first process's orders until the order to leave.
    ///
    /// - Throws: `GroupFailure` if a process is lost, or an order cannot be understood.
    package func run() throws(GroupFailure) {
        while true {
            switch orders.take() {
            case .failure(let failure):
                endTeam()
                throw failure
            case .order(let message):
                do throws(Wire.Failure) {
                    guard try obey(Order(message.bodyCopy), epoch: message.epoch) else { return }
                } catch {
                    throw GroupFailure(rank: 0, reason: "the first process gave an order with \(error)")
                }
            }
        }
    }

    /// Executes one order.
    ///
    /// - Returns: `false` after the order to leave.
    private func obey(_ order: Order, epoch: UInt64) throws(Wire.Failure) -> Bool {
        switch order {
        case .start(let settings):
            guard epoch > lastEpoch else { throw Wire.Failure(description: "ranks of an epoch that is over") }
            lastEpoch = epoch
            endTeam()
            guard settings.pageSize % model.positionAlignment == 0 else {
                throw Wire.Failure(
                    description: "pages of \(settings.pageSize) tokens, and entries of \(model.positionAlignment)")
            }
            if let problem = model.description.problem(with: settings.cacheType) {
                throw Wire.Failure(description: problem)
            }
            let isDivisible = ProcessKVSharding.isPossible(
                settings.parallel, processes: processes.count,
                entriesPerPage: settings.pageSize / model.positionAlignment)
            guard isDivisible == (settings.processSharding != nil) else {
                throw Wire.Failure(description: "keys divided otherwise than \(processes.count) processes divide them")
            }
            begin(settings, epoch: epoch)
        case .step(let update):
            guard let team, team.epoch == epoch else {
                throw Wire.Failure(description: "a step for ranks of epoch \(epoch), which do not run")
            }
            let plan = try self.team!.known.plan(for: update)
            let problem = plan.problem(
                team.format, pages: team.settings.pages, windowPages: team.settings.windowPages,
                vocabularySize: model.vocabularySize, groups: team.settings.parallel.data,
                groupRanks: team.settings.parallel.context * team.settings.parallel.tensor)
            if let problem { throw Wire.Failure(description: problem) }
            let rows = plan.chunks.reduce(0) { $0 + $1.tokens.count }
            let most = team.settings.processSharding?.rows ?? max(team.settings.maxRows, EngineConfiguration.maxRows)
            if rows > most { throw Wire.Failure(description: "a step of \(rows) rows where the most is \(most)") }
            team.grammars.prepare(for: plan)
            team.threads.put(
                RowAssignment(
                    plan, team.settings.parallel, processSharding: team.settings.processSharding,
                    alignment: team.format.positionAlignment))
        case .pack(let order):
            reply(try cache(of: epoch).reply(toPack: order), epoch: epoch)
        case .place(let order):
            reply(try cache(of: epoch).reply(toPlace: order), epoch: epoch)
        case .stop:
            // The ranks of a later epoch may already run.
            if team?.epoch == epoch { endTeam() }
        case .leave:
            team?.breakOff()
            endTeam()
            return false
        }
        return true
    }

    /// Returns the cache of the ranks that run.
    private func cache(of epoch: UInt64) throws(Wire.Failure) -> CacheStore {
        guard let team, team.epoch == epoch else {
            throw Wire.Failure(description: "entries for ranks of epoch \(epoch), which do not run")
        }
        return team.cache
    }

    private func reply(_ reply: CacheReply, epoch: UInt64) {
        processes.send(Message(.entries, epoch: epoch, body: Wire.bytes(of: reply)), to: 0)
    }

    private func begin(_ settings: RankSettings, epoch: UInt64) {
        let placement = Placement(ranks: settings.parallel.world, processes: processes.count)
        let world = ProcessWorld(processes, placement, epoch: epoch)
        let threads = RankThreads(placement.ranks(of: processes.process), alarm: world.alarm)
        processes.setHeartbeat { Wire.bytes(of: HeartbeatPayload(epoch, threads.progresses)) }
        let cache = CacheStore(settings, for: model, ranks: threads.ranks)
        cacheObserver(cache)
        let grammars = RequestGrammars(grammars)
        threads.start(model, cache, settings, grammars: grammars, in: world) { [processes] report in
            let sent = SentReport(report: report, at: Meter.now())
            processes.send(Message(.report, epoch: epoch, body: Wire.bytes(of: sent)), to: 0)
        }
        team = Team(
            epoch: epoch, settings: settings, cache: cache, world: world, threads: threads, grammars: grammars)
    }

    /// Waits for the ranks to do what they were given, unless the first process leaves meanwhile.
    private func endTeam() {
        processes.setHeartbeat(nil)
        if let team {
            team.threads.stop { if orders.haveLeave { team.breakOff() } }
        }
        team = nil
    }

    /// A queue of orders and failures, which any thread may fill.
    private final class Orders: Sendable {
        enum Entry {
            case order(Message)
            case failure(GroupFailure)
        }

        private let queue = Mutex<[Entry]>([])
        private let filled = DispatchSemaphore(value: 0)

        func put(_ entry: Entry) {
            queue.withLock { $0.append(entry) }
            filled.signal()
        }

        func take() -> Entry {
            filled.wait()
            return queue.withLock { $0.removeFirst() }
        }

        /// True if the order to leave waits to be taken.
        var haveLeave: Bool {
            queue.withLock { entries in
                entries.contains { entry in
                    guard case .order(let message) = entry, let order = try? Order(message.bodyCopy) else {
                        return false
                    }
                    if case .leave = order { return true }
                    return false
                }
            }
        }
    }
}

extension RankFollower {
    /// Tells all other processes to leave the job; the first process calls this.
    package static func dismiss(_ processes: Processes) {
        processes.sendToAll(Message(.order, body: Order.leave.bytes))
    }
}

extension HeartbeatPayload {
    fileprivate init(_ epoch: UInt64, _ progresses: [RankProgress]) {
        let now = Meter.now()
        self.init(
            epoch: epoch,
            ranks: progresses.map { progress in
                let snapshot = progress.snapshot
                return RankHeartbeat(
                    age: now - min(snapshot.since, now), isWaiting: snapshot.isWaiting,
                    description: snapshot.description)
            })
    }
}
