import JSON
import NIOHTTP1
import Serving
import Synchronization

/// Asks every worker at an interval whether it takes requests, and what it has to do. A worker that does not answer
/// delays no check of another one.
final class HealthMonitor: Sendable {
    private let configuration: RouterConfiguration
    private let fleet: Fleet
    private let client: WorkerClient
    /// The workers whose check has not ended.
    private let checking = Mutex<Set<Int>>([])
    /// The states of workers that were logged.
    private let logged = Mutex<[Int: WorkerHealth.State]>([:])
    /// The warnings about workers that were logged.
    private let warned = Mutex<[Int: [String]]>([:])
    /// When workers that were removed, but still have requests, gave their last sign of life.
    private let lastAnswers = Mutex<[Int: ContinuousClock.Instant]>([:])

    init(_ configuration: RouterConfiguration, _ fleet: Fleet) {
        (self.configuration, self.fleet) = (configuration, fleet)
        client = WorkerClient(key: configuration.workerKey ?? configuration.server.apiKeys.first)
    }

    /// Checks all workers until the task is cancelled.
    func run() async {
        await withDiscardingTaskGroup { checks in
            repeat {
                for worker in fleet.workers {
                    start(worker.id, in: &checks) { await self.check(worker) }
                }
                let departed = fleet.departed
                lastAnswers.withLock { $0 = $0.filter { departed[$0.key] != nil } }
                for (id, address) in departed {
                    start(id, in: &checks) { await self.checkDeparted(id, address) }
                }
            } while (try? await Task.sleep(for: configuration.checkInterval)) != nil
            checks.cancelAll()
        }
    }

    /// Starts a check, unless that worker's last one has not ended.
    private func start(
        _ worker: Int, in checks: inout DiscardingTaskGroup, _ check: @escaping @Sendable () async -> Void
    ) {
        guard checking.withLock({ $0.insert(worker).inserted }) else { return }
        checks.addTask {
            await check()
            _ = self.checking.withLock { $0.remove(worker) }
        }
    }

    /// Ends the requests of a removed worker that has died: no connection says so if its machine or its network is lost.
    private func checkDeparted(_ id: Int, _ address: ServerAddress) async {
        guard let limit = configuration.silenceLimit, let found = await state(of: address) else { return }
        let last = lastAnswers.withLock { answers in
            if case .missed = found, let last = answers[id] { return last }
            answers[id] = .now
            return ContinuousClock.Instant.now
        }
        if last.duration(to: .now) > limit { fleet.closeRequests(of: id, silentFor: limit) }
    }

    private func check(_ worker: RoutedWorker) async {
        guard let found = await state(of: worker.address) else { return }
        fleet.record(found, of: worker.id)
        logChange(of: worker.id)
        switch found {
        case .ready: await readLoad(of: worker)
        case .notReady: break
        case .missed:
            guard let limit = configuration.silenceLimit else { return }
            if worker.health.lastAnswer.duration(to: .now) > limit {
                fleet.closeRequests(of: worker.id, silentFor: limit)
            }
        }
    }

    /// Logs a worker's state if it is another one than after the last check.
    private func logChange(of id: Int) {
        guard let worker = fleet.workers.first(where: { $0.id == id }) else {
            logged.withLock { _ = $0.removeValue(forKey: id) }
            warned.withLock { _ = $0.removeValue(forKey: id) }
            return
        }
        let state = worker.health.state
        guard logged.withLock({ $0.updateValue(state, forKey: id) != state }) else { return }
        switch state {
        case .unknown: break
        case .ready: Log.write(.notice, "\(worker.address) is ready")
        case .notReady, .unreachable:
            let words = state == .notReady ? "is not ready" : "cannot be reached"
            Log.write(.warning, "\(worker.address) \(words): \(worker.health.reason ?? "no reason")")
        }
    }

    /// Returns `nil` if this router cannot know, because it can open no connection.
    private func state(of address: ServerAddress) async -> WorkerHealth.Check? {
        do {
            let answer = try await client.send(
                .GET, configuration.checkPath, to: address, within: configuration.checkTimeout)
            if answer.status == 200 { return .ready }
            let code = (try? JSONValue(parsing: answer.body, limits: .strict))?["error"]?["code"]?.string
            return .notReady("status \(answer.status)\(code.map { ", \($0.prefix(64))" } ?? "")")
        } catch UpstreamError.exhausted {
            return nil
        } catch {
            return .missed("\(error)")
        }
    }

    private func readLoad(of worker: RoutedWorker) async {
        guard
            let answer = try? await client.send(
                .GET, LoadReport.path, to: worker.address, within: configuration.checkTimeout),
            answer.status == 200, let json = try? JSONValue(parsing: answer.body, limits: .strict)
        else { return }
        fleet.record(LoadReport(json), of: worker.id)
        let warnings = fleet.warnings(about: worker.id)
        let old = warned.withLock { $0.updateValue(warnings, forKey: worker.id) } ?? []
        for warning in warnings where !old.contains(warning) { Log.write(.warning, "\(worker.address) \(warning)") }
    }
}
