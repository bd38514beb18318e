import Foundation
import Synchronization

/// Runs the program under attack with hostile files or arguments, and checks how it ends.
struct Program: Sendable {
    let path: String
    /// A directory that may be filled with anything.
    let directory: String

    private static let number = Atomic<Int>(0)
    /// The exit status of a process whose thread has trapped.
    private static let statusOfTrap: Int32 = 70
    private static let maxResidentBytes = 3 << 29

    /// Returns a name in the directory that is not in use.
    func newPath() -> String { "\(directory)/\(Self.number.add(1, ordering: .relaxed).newValue)" }

    /// Runs a command, and ends it with SIGTERM where it would go on.
    ///
    /// - Parameter limit: the time after which it gets SIGTERM, in seconds; `nil` if it must end by itself.
    /// - Throws: `Finding` if it traps, is killed, does not end, fails without a word or takes too much memory.
    func run(_ arguments: [String], limit: Double? = nil) throws {
        let log = newPath()
        defer { try? FileManager.default.removeItem(atPath: log) }
        let process: ChildProcess
        do {
            process = try ChildProcess([path] + arguments, log: log)
        } catch {
            // The arguments are too long for the system.
            return
        }
        let end = try end(of: process, limit)
        let output = process.output()
        switch end {
        case .status(Self.statusOfTrap): throw Finding("it trapped: \(output.suffix(600))")
        case .status(let status) where status != 0 && output.allSatisfy(\.isWhitespace):
            throw Finding("exit status \(status) without a message")
        case .status: break
        case .signal: throw Finding("\(end): \(output.suffix(600))")
        }
        guard !output.contains("Fatal error") else { throw Finding("it trapped: \(output.suffix(600))") }
        guard process.maxResidentBytes <= Self.maxResidentBytes else {
            throw Finding("it took \(process.maxResidentBytes >> 20) MiB: \(output.suffix(300))")
        }
    }

    /// Waits for the end of a command, which gets SIGTERM after `limit`.
    private func end(of process: ChildProcess, _ limit: Double?) throws(Finding) -> ChildProcess.End {
        if let end = process.wait(limit ?? Patience.program) { return end }
        guard limit != nil else {
            throw Finding("it goes on after \(Patience.program) seconds: \(process.output(300))")
        }
        process.send(SIGTERM)
        guard let end = process.wait(Patience.program) else {
            throw Finding("it does not end within \(Patience.program) seconds of SIGTERM: \(process.output(300))")
        }
        return end == .signal(SIGTERM) ? .status(0) : end
    }
}
