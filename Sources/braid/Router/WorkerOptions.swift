import ArgumentParser
import Foundation
package import Routing

/// The options that say which workers a router has.
package struct WorkerOptions: ParsableArguments, Sendable {
    package typealias Worker = (address: ServerAddress, role: RoutedWorker.Role)

    @Option(parsing: .upToNextOption, help: "The servers, as http://host:port; one or more.")
    var workerUrls: [String] = []

    @Flag(
        help: """
            The workers are pairs of servers, of which one computes the prompts of the other (--prefill, --decode). \
            Requests go to decode servers, which choose among the prefill servers that they were started with.
            """)
    var pdDisaggregation = false

    @Option(
        parsing: .upToNextOption,
        help: """
            A prefill server, whose health is checked: http://host:port, and perhaps the port for decode servers, which \
            is not used; repeatable.
            """)
    var prefill: [String] = []

    @Option(parsing: .upToNextOption, help: "A decode server, as http://host:port; repeatable.")
    var decode: [String] = []

    @Option(
        help: """
            A file with workers, a line each: http://host:port or, with --pd-disaggregation, prefill or decode and the \
            URL. Read again at SIGHUP.
            """)
    var workersFile: String?

    package init() {}

    /// Returns the workers of the options and of the file.
    ///
    /// - Parameter router: the router, whose own address is no worker.
    /// - Throws: `CommandError` with all problems, a line each.
    package func workers(of router: RouterConfiguration) throws -> [Worker] {
        var problems: [String] = []
        if pdDisaggregation, !workerUrls.isEmpty {
            problems.append("--worker-urls: not with --pd-disaggregation; give --prefill and --decode")
        }
        if !pdDisaggregation, !prefill.isEmpty || !decode.isEmpty {
            problems.append("--prefill and --decode need --pd-disaggregation; for other servers give --worker-urls")
        }
        var found: [Worker] = []
        for (texts, option, role) in [
            (workerUrls, "--worker-urls", RoutedWorker.Role.regular), (prefill, "--prefill", .prefill),
            (decode, "--decode", .decode),
        ] {
            // A port of the prefill server's other listener follows its URL.
            for text in texts where !(role == .prefill && (Int(text) != nil || text == "none")) {
                do {
                    found.append((try ServerAddress(url: text, option: option), role))
                } catch {
                    problems.append("\(error)")
                }
            }
        }
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }
        if let workersFile {
            found += try Self.read(
                DataFile(path: workersFile, option: "--workers-file", limit: 1 << 20), pdDisaggregation)
        }
        for worker in found where router.isOwn(worker.address) {
            throw CommandError(
                "\(worker.address) is the router's own address (--port): give another port to the router or to the worker"
            )
        }
        return try checked(found)
    }

    private func checked(_ found: [Worker]) throws -> [Worker] {
        var seen: Set<ServerAddress> = []
        for worker in found where !seen.insert(worker.address).inserted {
            throw CommandError("\(worker.address) is given twice; give every worker once")
        }
        guard found.count <= PrefixIndex.maxSlots else {
            throw CommandError(
                "\(found.count) workers are given; a router has at most \(PrefixIndex.maxSlots), start another one for more"
            )
        }
        if pdDisaggregation, !found.isEmpty, !found.contains(where: { $0.role == .decode }) {
            throw CommandError("--pd-disaggregation: there is no decode server; give --decode http://host:port")
        }
        return found
    }

    /// Reads the lines of a workers file. What is behind `#` is a comment.
    package static func read(_ file: DataFile, _ hasRoles: Bool) throws -> [Worker] {
        let advice =
            hasRoles ? "write prefill http://host:port or decode http://host:port" : "write http://host:port"
        return try file.lines.compactMap { number, bytes in
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw file.problem(line: number, "it is not UTF-8", advice: advice)
            }
            let words = text.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace).map(String.init)
            if words.isEmpty { return nil }
            let role = hasRoles ? RoutedWorker.Role(rawValue: words[0]) : .regular
            guard let role, hasRoles ? role != .regular && (2...3).contains(words.count) : words.count == 1 else {
                throw file.problem(line: number, "'\(text.prefix(80))' is no worker", advice: advice)
            }
            do throws(ServerAddress.Problem) {
                return (try ServerAddress(words[hasRoles ? 1 : 0]), role)
            } catch {
                throw file.problem(line: number, "\(error)", advice: advice)
            }
        }
    }
}
