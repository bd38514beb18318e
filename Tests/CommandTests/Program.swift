import Foundation
import TestSupport

/// The program that was built beside these tests, run as a process.
enum Program {
    static let demo = Golden.root + "/Models/demo"

    struct Outcome {
        let status: Int32
        let output: String
        let errors: [String]
    }

    /// Starts the program, without the `BRAID_…` variables of these tests.
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
        return process
    }

    /// A command line that a shell runs, until it is told to end.
    struct Running {
        fileprivate let process: Process
        fileprivate let errors: FileHandle

        /// Waits until standard error has these words; `false` if it ends before.
        func says(_ words: String) -> Bool {
            var text = Data()
            while !String(decoding: text, as: UTF8.self).contains(words) {
                let more = errors.availableData
                if more.isEmpty { return false }
                text += more
            }
            return true
        }

        func end() {
            process.terminate()
            process.waitUntilExit()
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
        return Running(process: process, errors: errors.fileHandleForReading)
    }

    /// Runs the program to its end.
    ///
    /// - Parameter input: What it reads from standard input.
    static func run(
        _ arguments: [String], input: String = "", environment: [String: String] = [:]
    ) throws -> Outcome {
        let (typed, output, errors) = (Pipe(), Pipe(), Pipe())
        let process = try start(arguments, input: typed, output: output, errors: errors, environment: environment)
        try typed.fileHandleForWriting.write(contentsOf: Data(input.utf8))
        try typed.fileHandleForWriting.close()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        let printed = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return Outcome(
            status: process.terminationStatus, output: printed,
            errors: text.split(separator: "\n").map(String.init))
    }
}
