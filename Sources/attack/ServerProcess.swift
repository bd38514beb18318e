import Foundation
import JSON

/// The server under attack: `braid serve` in a process of its own.
final class ServerProcess {
    let port: Int
    let model: String
    private let process: ChildProcess

    /// Starts a server and waits until it is ready.
    init(program: String, modelPath: String, options: [String], directory: String) throws {
        port = try Self.freePort()
        model = URL(fileURLWithPath: modelPath).lastPathComponent
        process = try ChildProcess(
            [program, "serve", "--model-path", modelPath, "--port", "\(port)"] + options,
            log: directory + "/server.log")
        let deadline = ContinuousClock.now + .seconds(Patience.program)
        while (try? get("/ready"))?.status != 200 {
            guard process.wait(0.05) == nil, ContinuousClock.now < deadline else {
                throw Finding("the server was not ready: \(process.output())")
            }
        }
    }

    var pid: pid_t { process.pid }
    var hasEnded: Bool { process.wait(0) != nil }
    var log: String { process.output(4000) }

    func get(_ path: String, method: String = "GET") throws -> HTTPExchange.Reply {
        let exchange = try HTTPExchange(port: port)
        exchange.send(method, path, method == "POST" ? [] : nil, headers: "Connection: close\r\n")
        return try exchange.reply(within: Patience.answer)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// - Throws: if the server does not end, or not with status 0.
    func stop() throws {
        process.send(SIGTERM)
        guard let end = process.wait(Patience.program) else {
            throw Finding("the server did not end within \(Int(Patience.program)) seconds of SIGTERM")
        }
        guard end == .status(0) else { throw Finding("the server ended with \(end) after SIGTERM: \(log)") }
    }

    /// Runs prompts that together need all pages of the cache, whose memory is taken when it is first written.
    func fillCache() throws {
        for number in 1...2 {
            let ids = (0..<4000).map { "\(3 + ($0 * number) % 1000)" }.joined(separator: ",")
            let exchange = try HTTPExchange(port: port)
            let body = "{\"input_ids\": [\(ids)], \"sampling_params\": {\"max_new_tokens\": 1}}"
            exchange.send("POST", "/generate", Array(body.utf8), headers: "Connection: close\r\n")
            let reply = try exchange.reply(within: Patience.generation)
            guard reply.status == 200 else { throw Finding("a long prompt has status \(reply.status): \(reply.text)") }
        }
    }

    // MARK: - What it uses

    var descriptorCount: Int {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count) ?? 0
    }

    /// The resident memory in bytes that no file backs.
    var residentBytes: Int {
        let status = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
        let line = status.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }
        return (line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0) << 10
    }

    /// Returns the values of `/metrics` that have no label besides the model's name.
    func metrics() throws -> (values: [String: Double], statuses: [Int: Double]) {
        var (values, statuses): ([String: Double], [Int: Double]) = ([:], [:])
        for line in try get("/metrics").text.split(separator: "\n") where line.hasPrefix("braid_") {
            guard let space = line.lastIndex(of: " "), let value = Double(line[line.index(after: space)...]) else {
                continue
            }
            let series = line[..<space].dropFirst("braid_".count)
            let name = String(series.prefix { $0 != "{" })
            if name == "requests_total", let range = series.firstRange(of: "status=\""),
                let status = Int(series[range.upperBound...].prefix(3))
            {
                statuses[status, default: 0] += value
            } else {
                values[name] = value
            }
        }
        return (values, statuses)
    }

    private static func freePort() throws -> Int {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { _ = Foundation.close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let failed = unsafe withUnsafeMutablePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe bind(descriptor, $0, size) != 0 || getsockname(descriptor, $0, &size) != 0
            }
        }
        guard !failed else { throw Finding("no port is free: error \(errno)") }
        return Int(UInt16(bigEndian: address.sin_port))
    }
}
