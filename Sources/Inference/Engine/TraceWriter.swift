import Foundation
package import Parallelism
import Synchronization

/// Writes what ranks do to a file that Perfetto and Chrome's `about:tracing` open: a process for each pipeline stage, a
/// lane for each of its ranks, and one for the engine.
///
/// The format is a JSON array of events. The file ends with the bracket after every batch, so that it is valid whenever
/// the process ends. Events are written on a queue of the writer's own; when it is too far behind, `write` waits, so
/// that memory stays bounded and no event is lost.
package final class TraceWriter: Sendable {
    private let queue = DispatchQueue(label: "braid trace")
    private let room = DispatchSemaphore(value: 64)
    private let file: Mutex<FileHandle?>
    private let stageRanks: Int
    private let path: String
    private let log: @Sendable (String) -> Void
    private let failure = Mutex<String?>(nil)

    /// The engine's own lane is a process before those of the stages.
    private static let engineProcess = 0

    /// - Parameter log: called with a line when the file can no longer be written.
    /// - Throws: `TraceError` when the file cannot be opened.
    package init(
        path: String, _ configuration: ParallelConfiguration, log: @escaping @Sendable (String) -> Void = { _ in }
    ) throws(TraceError) {
        // In place: `createFile` would put a new file where a pipe or a device is.
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw TraceError(path: path) }
        let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        file = Mutex(handle)
        stageRanks = configuration.stageRanks
        self.path = path
        self.log = log
        do {
            try handle.write(contentsOf: Data("[\n\(Self.names(configuration).joined(separator: ",\n"))\n]\n".utf8))
        } catch {
            file.withLock { $0 = nil }
            fail(error)
        }
    }

    /// Why the file ends before its time; `nil` where it does not. Service goes on without it.
    package var problem: String? { failure.withLock { $0 } }

    private func fail(_ error: any Error) {
        let cause = (error as NSError).userInfo[NSUnderlyingErrorKey] as? NSError ?? error as NSError
        let problem =
            "--trace: writing to '\(path)' failed, and the file is not complete: \(cause.localizedDescription)"
        failure.withLock { $0 = problem }
        log(problem)
    }

    /// What a rank did in a step.
    func write(_ report: StepReport) {
        let (process, thread) = (report.rank / stageRanks + 1, report.rank)
        append { text in
            for span in report.spans { text += Self.event(span, process, thread, rows: report.rows) }
        }
    }

    /// Something the engine's thread did.
    func write(_ span: TraceSpan) {
        append { $0 += Self.event(span, Self.engineProcess, 0, rows: nil) }
    }

    /// Returns when everything is in the file. What comes later is dropped.
    package func close() {
        queue.sync {
            file.withLock { file in
                try? file?.close()
                file = nil
            }
        }
    }

    private func append(_ write: @escaping @Sendable (inout String) -> Void) {
        room.wait()
        queue.async { [self] in
            var text = ""
            write(&text)
            text += "\n]\n"
            file.withLock { file in
                // Over the bracket, which comes again behind the new events.
                guard let end = try? file?.offset() else { return }
                do {
                    try file?.seek(toOffset: end - UInt64("\n]\n".utf8.count))
                    try file?.write(contentsOf: Data(text.utf8))
                } catch {
                    // A full disk ends the trace, and nothing else.
                    try? file?.close()
                    file = nil
                    fail(error)
                }
            }
            room.signal()
        }
    }

    /// An event behind others: a span with begin and length, in microseconds.
    private static func event(_ span: TraceSpan, _ process: Int, _ thread: Int, rows: Int?) -> String {
        // Of other processes too: whatever bytes they sent, the file stays JSON.
        var name = span.name.filter { $0.isASCII && $0 >= " " && $0 != "\"" && $0 != "\\" }
        var arguments = ""
        if let number = span.number {
            // Steps are told apart by position and number; a name of their own would be a colour of their own for each.
            if name == "layer" { name += " \(number)" }
            arguments = "\"number\":\(number)"
            if name == "step", let rows { arguments += ",\"rows\":\(rows)" }
        }
        return """
            ,
            {"ph":"X","name":"\(name)","pid":\(process),"tid":\(thread),"ts":\(microseconds(span.begin)),\
            "dur":\(microseconds(span.end - span.begin)),"args":{\(arguments)}}
            """
    }

    private static func microseconds(_ nanoseconds: UInt64) -> String {
        let rest = String(nanoseconds % 1000)
        return "\(nanoseconds / 1000).\(String(repeating: "0", count: 3 - rest.count))\(rest)"
    }

    /// What processes and threads are called.
    private static func names(_ configuration: ParallelConfiguration) -> [String] {
        let mesh = configuration.mesh
        var events = [
            name("process_name", engineProcess, 0, "engine"), name("thread_name", engineProcess, 0, "scheduler"),
        ]
        for stage in 0..<configuration.pipeline {
            let title = configuration.pipeline > 1 ? "stage \(stage)" : "ranks"
            events.append(name("process_name", stage + 1, 0, title))
        }
        for rank in 0..<configuration.world {
            let places = [Axis.data, .context, .tensor].filter { mesh.degree($0) > 1 }.map {
                ", \($0) \(mesh.coordinate(of: rank, on: $0))"
            }
            events.append(
                name("thread_name", rank / configuration.stageRanks + 1, rank, "rank \(rank)\(places.joined())"))
        }
        return events
    }

    private static func name(_ kind: String, _ process: Int, _ thread: Int, _ name: String) -> String {
        "{\"ph\":\"M\",\"name\":\"\(kind)\",\"pid\":\(process),\"tid\":\(thread),\"args\":{\"name\":\"\(name)\"}}"
    }
}

/// Why there is no trace.
package struct TraceError: Error, Sendable, CustomStringConvertible {
    package let path: String
    package var description: String {
        "--trace: cannot write to '\(path)'; give the name of a file in a directory that exists"
    }
}
