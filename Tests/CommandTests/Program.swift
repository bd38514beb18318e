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
