package import Foundation
package import JSON
import Logging
import Synchronization

/// The log of the program: lines on standard error, as text or as JSON objects. Until `start` it writes text of every
/// level from `info` on, before it returns; afterwards lines are written by a thread of their own, so that a server never
/// waits for whoever reads its log.
package enum Log {
    /// The importance of a line, in ascending order.
    package enum Level: String, Sendable, CaseIterable {
        case trace, debug, info, notice, warning, error, critical
    }

    package enum Format: String, Sendable, CaseIterable { case text, json }

    private struct Settings {
        var level = Level.info
        var format = Format.text
        var isQueued = false
    }

    private static let settings = Mutex(Settings())
    private static let queue = LineQueue(
        maxBytes: 256 << 10,
        dropped: { count in
            let message = "\(count) lines of the log were dropped: standard error did not take them"
            return Data((text(.warning, message, [], format, at: Date()) + "\n").utf8)
        }, write: writeNow)
    /// The time in which the last lines may be written when the process ends.
    private static let secondsToEnd = 1.0

    /// Sets the least level and the format of all lines, those of the HTTP server included. It is called at most once,
    /// before a server is built.
    package static func start(level: Level, format: Format) {
        settings.withLock { $0 = Settings(level: level, format: format, isQueued: true) }
        atexit { Log.flush() }
        LoggingSystem.bootstrap { _ in LineHandler(logLevel: Logger.Level(rawValue: level.rawValue) ?? .info) }
    }

    /// The format of the lines.
    package static var format: Format { settings.withLock { $0.format } }

    /// Writes a line.
    ///
    /// - Parameter fields: Values that belong to the message.
    package static func write(_ level: Level, _ message: String, _ fields: [JSONMember] = []) {
        let settings = settings.withLock { $0 }
        guard level.order >= settings.level.order else { return }
        let line = text(level, message, fields, settings.format, at: Date())
        let bytes = Data((line + "\n").utf8)
        if settings.isQueued { queue.write(bytes) } else { writeNow(bytes) }
    }

    /// Waits a moment until the lines so far are written, before the process ends or writes something else to standard
    /// error.
    package static func flush() {
        if settings.withLock({ $0.isQueued }) { queue.flush(within: secondsToEnd) }
    }

    /// Writes a line in one write, so that it stays whole.
    private static func writeNow(_ line: Data) { try? FileHandle.standardError.write(contentsOf: line) }

    /// Returns a line without its end.
    package static func text(
        _ level: Level, _ message: String, _ fields: [JSONMember], _ format: Format, at time: Date
    ) -> String {
        switch format {
        case .text:
            return ([message] + fields.map { "\($0.key)=\($0.value.string ?? $0.value.pythonText)" })
                .joined(separator: " ")
        case .json:
            let stamp = time.formatted(.iso8601.year().month().day().time(includingFractionalSeconds: true))
            let members = [
                JSONMember("time", .string(stamp + "Z")), JSONMember("level", .string(level.rawValue)),
                JSONMember("message", .string(message)),
            ]
            return JSONValue.object(members + fields).pythonText
        }
    }
}

extension Log.Level {
    fileprivate var order: Int { Self.allCases.firstIndex(of: self)! }
}

/// Writes the lines of libraries into the log.
private struct LineHandler: LogHandler {
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
        let fields = all.sorted { $0.key < $1.key }.map { JSONMember($0.key, .string("\($0.value)")) }
        Log.write(Log.Level(rawValue: event.level.rawValue) ?? .info, event.message.description, fields)
    }
}
