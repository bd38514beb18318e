import ArgumentParser
import Checkpoints
import Foundation
import Grammar
import Inference
import Modeling
import Models
import Parallelism
import Serving
import Synchronization
import Tensors
import Verification

/// A job is the set of processes that run this command together: one, or those that `mpirun` started. The first process
/// executes the command; the others run ranks for it.
struct Job: Sendable {
    /// The processes of the job; `nil` if this process is alone.
    let processes: Processes?
    /// The best instruction-set level that all processes have, if their best ones differ; `nil` otherwise.
    let commonLevel: Kernels.Level?

    /// Joins the other processes, and checks that all are alike.
    ///
    /// - Throws: `CommandError` if they differ, or there is no MPI.
    ///
    /// - Parameter agreed: Options that must have the same values in all processes. They must not be secrets, as they
    ///   are sent to all processes and appear in error messages.
    static func join(
        _ options: ProcessOptions, _ checkpoint: Checkpoint, agreed: [ProcessCard.Property]
    ) throws -> Job {
        let line = try options.mpirunLine(
            LaunchLine.current?.given ?? Array(CommandLine.arguments.dropFirst()),
            program: Bundle.main.executablePath ?? "braid", isRoot: geteuid() == 0)
        if let line {
            let keys =
                line.contains("\"$BRAID_API_KEY") ? "\nafter setting the variables that it names to the keys" : ""
            throw CommandError("braid leaves starting processes to MPI; on the first host, run:\n  \(line)\(keys)")
        }
        guard let processes = try processes(patience: checkpoint.patience) else {
            return Job(processes: nil, commonLevel: nil)
        }
        do {
            let handshake = try Handshake(try card(checkpoint, agreed), among: processes)
            processes.know(names: handshake.names, pids: handshake.pids(seenBy: processes.process))
            let differences = handshake.differences(allowsMixedLevels: options.allowMixedIsa)
            guard differences.isEmpty else {
                processes.leave()
                // One process reports the differences.
                throw processes.process == 0 ? refusal(differences, handshake) : ExitCode(1)
            }
            let isMixed = Set(handshake.cards.map(\.levels.last)).count > 1
            return Job(processes: processes, commonLevel: isMixed ? handshake.commonLevel : nil)
        } catch let failure as GroupFailure {
            Job(processes: processes, commonLevel: nil).end("\(failure)")
        } catch let failure as CheckpointError {
            Job(processes: processes, commonLevel: nil).end("\(failure)")
        }
    }

    /// Connects the processes that mpirun has started; returns `nil` if this one is alone.
    private static func processes(patience: Double) throws(CommandError) -> Processes? {
        let environment = ProcessInfo.processInfo.environment
        let started = environment["OMPI_COMM_WORLD_SIZE"] ?? environment["PMI_SIZE"] ?? "1"
        if started == "1" { return nil }
        let processes: Processes
        do {
            let joining = Deadline(
                seconds: max(patience, secondsToJoin), "not all of the \(started) processes came to join the job")
            processes = Processes(try MPITransport.join(), patience: patience)
            joining.meet()
        } catch {
            throw CommandError("mpirun started \(started) processes, but \(error)")
        }
        if processes.process > 0 {
            // The first process decides when the job ends; mpirun tells all of them.
            for number in [SIGTERM, SIGINT] { _ = signal(number, SIG_IGN) }
        }
        return processes
    }

    /// The checkpoint, as far as the handshake depends on it.
    struct Checkpoint {
        let path: String
        let loadFormat: ModelDirectory.LoadFormat
        /// A process is lost after this many seconds of silence.
        let patience: Double
        /// The digest that the processes compare; `nil` digests samples of the files.
        var digest: ContentDigest?
    }

    /// The number of processes.
    var count: Int { processes?.count ?? 1 }
    /// The number of processes on this host.
    var countOnHost: Int { processes?.processesHere ?? 1 }

    private static func card(
        _ checkpoint: Checkpoint, _ agreed: [ProcessCard.Property]
    ) throws(CheckpointError) -> ProcessCard {
        var build = ContentDigest()
        try build.add("/proc/self/exe", as: "braid")
        var model = ContentDigest()
        if let digest = checkpoint.digest {
            model = digest
        } else {
            model = try ContentDigest(model: checkpoint.path, weights: checkpoint.loadFormat == .auto)
        }
        return ProcessCard(
            properties: [
                .init("protocol", "\(Message.version)"), .init("build", "\(build)"), .init("model", "\(model)"),
            ] + agreed,
            levels: Kernels.available.map(\.level.rawValue), host: ProcessInfo.processInfo.hostName, system: system,
            pid: Int(ProcessInfo.processInfo.processIdentifier))
    }

    /// The identity of this boot of this host and its pid namespace.
    private static var system: String {
        let boot = (try? String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)) ?? ""
        let pids = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/pid")) ?? ""
        return boot.trimmingCharacters(in: .whitespacesAndNewlines) + pids
    }

    private static func refusal(_ differences: [Handshake.Difference], _ handshake: Handshake) -> CommandError {
        var table = TextTable(["process", "host"] + differences.map(\.name), left: 2 + differences.count)
        for (process, card) in handshake.cards.enumerated() {
            table.add(["\(process)", card.host] + differences.map { $0.values[process] })
        }
        let isLevel = differences.contains { $0.name == "instruction set" } && handshake.commonLevel != nil
        return CommandError(
            "the processes differ, so the job does not start:\n" + table.lines.joined(separator: "\n")
                + "\nstart the same build with the same values of these options and the same model everywhere"
                + (isLevel ? "; --allow-mixed-isa lets all run at \(handshake.commonLevel!.rawValue)" : ""))
    }

    // MARK: - Running

    /// Runs a command: `lead` in the first process, and in the others ranks of the model, until the first is done.
    ///
    /// - Parameter grammars: Returns the grammar cache of the model's vocabulary, if requests may follow grammars.
    func run(
        _ load: () throws -> any Model, grammars: (any Model) throws -> GrammarCache? = { _ in nil },
        lead: () async throws -> Void
    ) async throws {
        guard let processes else { return try await lead() }
        do {
            if processes.process > 0 {
                let model = try load()
                try RankFollower(model, processes, grammars: try grammars(model)).run()
            } else {
                processes.onFailure { failure in
                    // Waiting clients get their error first.
                    Thread.detachNewThread {
                        Thread.sleep(forTimeInterval: Self.secondsToAnswer)
                        end("\(failure)")
                    }
                }
                let ending = DispatchSource.makeSignalSource(signal: SIGTERM, queue: .global())
                ending.setEventHandler { processes.suspect() }
                ending.resume()
                defer { ending.cancel() }
                try await lead()
            }
        } catch {
            if processes.process == 0, processes.failure == nil {
                // The failure is the command's alone: all processes are alive and still follow.
                leave(processes)
                throw error
            }
            if processes.process > 0, processes.failure != nil, !processes.hasLostFirst {
                // The first process answers its clients, and then ends the job.
                try? await Task.sleep(for: .seconds(2 * Self.secondsToAnswer))
            }
            end("\(error)")
        }
        leave(processes)
    }

    private func leave(_ processes: Processes) {
        let pendingDispatch = Deadline(seconds: Self.secondsToLeave, "a process does not leave the job")
        if processes.process == 0 { RankFollower.dismiss(processes) }
        processes.leave()
        pendingDispatch.meet()
    }

    /// Prints the reason, and ends all processes.
    func end(_ reason: String) -> Never {
        Log.write(.error, "process \(processes?.process ?? 0): \(reason)")
        Log.flush()
        processes?.endJob(status: 1)
        // MPI ends this process too; if it cannot, it ends itself.
        Thread.sleep(forTimeInterval: 3)
        _exit(1)
    }

    /// A deadline guards calls that wait inside MPI, which nothing else can end: when it passes, it ends this process,
    /// and thereby the job.
    private final class Deadline: Sendable {
        private let isMet = Atomic(false)

        init(seconds: Double, _ reason: String) {
            Thread.detachNewThread { [self] in
                Thread.sleep(forTimeInterval: seconds)
                if isMet.load(ordering: .acquiring) { return }
                note("\(reason) within \(Int(seconds)) s")
                Log.flush()
                _exit(1)
            }
        }

        func meet() { isMet.store(true, ordering: .releasing) }
    }

    private static let secondsToJoin = 10.0
    private static let secondsToAnswer = 4.0
    private static let secondsToLeave = 20.0
}
