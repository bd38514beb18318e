import Foundation
package import Parallelism
import Synchronization
import Tensors

/// A trace writer records what the ranks do in a file for Perfetto or Chrome's `about:tracing`. The trace has one
/// process per pipeline stage with one thread per rank, and one process for the engine.
///
/// The file is a JSON array of events. It is closed with a bracket after every batch, so it is valid whenever the
/// process ends. A queue writes the events; when too many are waiting, `write` blocks, so memory stays bounded and no
/// event is lost.
package final class TraceWriter: Sendable {
    private let queue = DispatchQueue(label: "braid trace")
    private let room = DispatchSemaphore(value: 64)
    private let file: Mutex<Output?>
    private let stageRanks: Int
    private let path: String
    private let log: @Sendable (String) -> Void
    private let failure = Mutex<String?>(nil)

    /// The open file.
    private struct Output {
        let handle: FileHandle
        /// The number of bytes that were written. A device such as `/dev/null` does not tell.
        var length: UInt64

        mutating func append(_ text: String) throws {
            try handle.write(contentsOf: Data(text.utf8))
            length += UInt64(text.utf8.count)
        }
    }

    /// Ends the file, and is overwritten by the next events.
    private static let ending = "\n]\n"

    /// The engine's process number in the trace; the stages follow.
    private static let engineProcess = 0

    /// - Parameter log: Receives a line when the file can no longer be written.
    /// - Throws: `TraceError` if the file cannot be opened, or is a pipe: what was written into one cannot be overwritten,
    ///   and ranks would wait for its reader.
    package init(
        path: String, _ configuration: ParallelConfiguration, log: @escaping @Sendable (String) -> Void = { _ in }
    ) throws(TraceError) {
        // In place: `createFile` would put a new file where a device is. The opening of a pipe does not wait for a reader.
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw TraceError(
                path: path, problem: errno == ENXIO ? Self.isPipe : systemMessage(errno))
        }
        let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        var facts = stat()
        guard unsafe fstat(descriptor, &facts) == 0, facts.st_mode & S_IFMT != S_IFIFO else {
            throw TraceError(path: path, problem: Self.isPipe)
        }
        file = Mutex(Output(handle: handle, length: 0))
        stageRanks = configuration.stageRanks
        self.path = path
        self.log = log
        write("[\n\(Self.names(configuration).joined(separator: ",\n"))", over: 0)
    }

    private static let isPipe = "it is a pipe"

    /// Writes a text and the file's ending behind it.
    ///
    /// - Parameter over: the number of bytes at the file's end that the text overwrites.
    private func write(_ text: String, over: Int) {
        let failure: (any Error)? = file.withLock { output in
            guard let open = output else { return nil }
            do {
                output!.length -= UInt64(over)
                try open.handle.seek(toOffset: output!.length)
                try output!.append(text + Self.ending)
                return nil
            } catch {
                // A full disk ends the trace, and nothing else.
                try? open.handle.close()
                output = nil
                return error
            }
        }
        if let failure { fail(failure) }
    }

    /// The reason why the file is incomplete; `nil` where it is complete. Service goes on without the trace.
    package var problem: String? { failure.withLock { $0 } }

    private func fail(_ error: any Error) {
        let problem = "--trace: writing to '\(path)' failed, and the file is not complete: \(error.fileReason)"
        failure.withLock { $0 = problem }
        log(problem)
    }

    /// Writes the spans of one rank in one step.
    func write(_ report: StepReport) {
        let (process, thread) = (report.rank / stageRanks + 1, report.rank)
        append { text in
            for span in report.spans { text += Self.event(span, process, thread, rows: report.rows) }
        }
    }

    /// Writes a span of the engine's thread.
    func write(_ span: TraceSpan) {
        append { $0 += Self.event(span, Self.engineProcess, 0, rows: nil) }
    }

    /// Writes all waiting events and closes the file. Later events are dropped.
    package func close() {
        queue.sync {
            file.withLock { file in
                try? file?.handle.close()
                file = nil
            }
        }
    }

    private func append(_ write: @escaping @Sendable (inout String) -> Void) {
        room.wait()
        queue.async { [self] in
            var text = ""
            write(&text)
            self.write(text, over: Self.ending.utf8.count)
            room.signal()
        }
    }

    /// Returns a span as a JSON event that continues the array, with begin and length in microseconds.
    private static func event(_ span: TraceSpan, _ process: Int, _ thread: Int, rows: Int?) -> String {
        // The name may come from another process: whatever its bytes, the file stays JSON.
        var name = span.name.filter { $0.isASCII && $0 >= " " && $0 != "\"" && $0 != "\\" }
        var arguments = ""
        if let number = span.number {
            // A viewer colours events by name: layers have one colour each, all steps share one.
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

    /// Returns the events that name the trace's processes and threads.
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

/// A trace error tells that the trace file cannot be opened.
package struct TraceError: Error, Sendable, CustomStringConvertible {
    package let path: String
    package let problem: String
    package var description: String {
        "--trace: cannot write to '\(path)': \(problem); give the name of a file in a directory that exists"
    }
}

extension Error {
    /// Why the system refused to read or write a file, without what Foundation says around it.
    package var fileReason: String {
        let cause = (self as NSError).userInfo[NSUnderlyingErrorKey] as? NSError ?? self as NSError
        // Foundation's own text begins by saying that the operation could not be completed.
        guard cause.domain == NSPOSIXErrorDomain else { return cause.localizedDescription }
        return systemMessage(Int32(truncatingIfNeeded: cause.code))
    }
}
