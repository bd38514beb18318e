import Dispatch
import Foundation
import Synchronization
import TestSupport
import Testing

/// The program that was built beside these tests, run as a process.
enum Program {
    static let demo = Golden.root + "/Models/demo"

    struct Outcome {
        let status: Int32
        let output: String
        let errors: [String]
    }

    /// Kills a process that still runs after five minutes, so that nobody waits for ever for it or what it prints.
    private static func limitTime(of process: Process) {
        DispatchQueue.global().asyncAfter(deadline: .now() + 300) { [weak process] in
            guard let process, process.isRunning else { return }
            Issue.record("\(process.arguments ?? []) has not ended within 300 s, and is killed")
            kill(process.processIdentifier, SIGKILL)
        }
    }

    /// Starts the program, without the `BRAID_…` variables of these tests. It is killed after five minutes.
    static func start(
        _ arguments: [String], input: Any? = nil, output: Any, errors: Any, environment: [String: String] = [:]
    ) throws -> Process {
        let tests = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        let process = Process()
        process.executableURL = tests.deletingLastPathComponent().appendingPathComponent("braid")
        process.arguments = arguments
        let inherited = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("BRAID_") }
        process.environment = inherited.merging(environment) { $1 }
        process.standardInput = input ?? FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = errors
        try process.run()
        limitTime(of: process)
        return process
    }

    /// A command line that a shell runs, until it is told to end or five minutes have passed.
    struct Running {
        fileprivate let process: Process
        fileprivate let errors: FileHandle

        /// Waits until standard error has these words; `false` if it ends before.
        func says(_ words: String) -> Bool { errors.text(until: words).contains(words) }

        func end() {
            process.terminate()
            process.waitUntilExit()
        }

        /// Waits for the end, and returns the status, or the number of the signal, and what standard error has.
        func outcome() -> (status: Int32, errors: String) {
            let text = String(decoding: errors.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            return (process.terminationStatus, text)
        }

        /// The file behind a descriptor; `nil` if it is closed.
        func file(_ descriptor: Int32) -> String? {
            let link = "/proc/\(process.processIdentifier)/fd/\(descriptor)"
            return try? FileManager.default.destinationOfSymbolicLink(atPath: link)
        }
    }

    /// Starts a command line in a shell, which finds the program that was built beside these tests as `braid`.
    static func shell(_ line: some StringProtocol) throws -> Running {
        let tests = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        let folder = tests.deletingLastPathComponent().path
        let (process, errors) = (Process(), Pipe())
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "exec \(line)"]
        var environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("BRAID_") }
        environment["PATH"] = folder + ":" + (environment["PATH"] ?? "")
        process.environment = environment
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = errors
        try process.run()
        limitTime(of: process)
        return Running(process: process, errors: errors.fileHandleForReading)
    }

    /// Runs the program to its end. Both of its outputs are read at the same time: a full one would hold it up.
    ///
    /// - Parameter input: What it reads from standard input.
    static func run(
        _ arguments: [String], input: String = "", environment: [String: String] = [:]
    ) throws -> Outcome {
        let (typed, output, errors) = (Pipe(), Pipe(), Pipe())
        let process = try start(arguments, input: typed, output: output, errors: errors, environment: environment)
        try typed.fileHandleForWriting.write(contentsOf: Data(input.utf8))
        try typed.fileHandleForWriting.close()
        // `process` holds the pipe, so the descriptor stays open.
        let descriptor = output.fileHandleForReading.fileDescriptor
        let printed = Mutex(Data())
        let isRead = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            let all = FileHandle(fileDescriptor: descriptor, closeOnDealloc: false).readDataToEndOfFile()
            printed.withLock { $0 = all }
            isRead.signal()
        }
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        isRead.wait()
        process.waitUntilExit()
        return Outcome(
            status: process.terminationStatus, output: String(decoding: printed.withLock { $0 }, as: UTF8.self),
            errors: text.split(separator: "\n").map(String.init))
    }
}

extension FileHandle {
    /// Reads until these words have come, or the other end is closed, and returns what was read.
    func text(until words: String) -> String {
        var bytes = Data()
        while true {
            let text = String(decoding: bytes, as: UTF8.self)
            if text.contains(words) { return text }
            let more = availableData
            if more.isEmpty { return text }
            bytes += more
        }
    }
}
