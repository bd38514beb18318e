import ArgumentParser
package import Disaggregation
import Foundation
package import KVTransport
import Serving
import Tensors

/// These options let one server compute prompts for another one. They have the names of SGLang's, where it has such
/// options.
package struct DisaggregationOptions: ParsableArguments, Sendable {
    package enum Mode: String, CaseIterable, ExpressibleByArgument {
        case null, prefill, decode

        package init?(argument: String) { self.init(rawValue: argument == "none" ? "null" : argument) }
    }

    @Option(
        help: """
            null: compute whole requests. prefill: also compute prompts for a decode server. decode: have prompts \
            computed by a prefill server. Every server answers all requests, and the answers are the same.
            """)
    var disaggregationMode = Mode.null

    @Option(
        help: """
            The port for the other server (default: 8998): a prefill server listens there, a decode server dials it if \
            --disaggregation-prefill names none; 0 lets the system choose.
            """,
        transform: Parsing.count(0...65_535))
    var disaggregationBootstrapPort = Self.usualPort

    @Option(
        help: """
            How keys are sent, the same on both servers. tcp (default). ucx: over RDMA, shared memory or whatever else UCX \
            finds between the servers; it needs UCX on both.
            """)
    var disaggregationTransferBackend: String?

    @Option(
        help: """
            The address on which a prefill server listens for the decode server; default: this machine only. Others need \
            a secret.
            """)
    var disaggregationHost: String?

    @Option(
        help: """
            HOST:PORT of the prefill server, for a decode server; several with commas between. A prompt goes to the one \
            that has the fewest to compute for this server.
            """)
    var disaggregationPrefill: String?

    @Option(
        help: """
            A file with the secret that both servers have, at least 16 bytes. Or give the secret itself as \
            BRAID_DISAGGREGATION_SECRET.
            """)
    var disaggregationSecretFile: String?

    @Option(
        help: """
            A decode server computes prompts itself of which its prefix cache lacks at most this many tokens; default: \
            512.
            """,
        transform: Parsing.count(0...Parsing.maxTokens))
    var disaggregationLocalPrefill: Int?

    package init() {}

    /// The port of prefill servers where none is given.
    static let usualPort = 8998
    /// The variable of the environment that holds the secret. It is no option, because lists of processes show those.
    package static let secretVariable = "BRAID_DISAGGREGATION_SECRET"
    private static let minSecretBytes = 16
    private static let maxSecretBytes = 4096
    /// Backends of other engines.
    private static let otherBackends = ["mooncake", "nixl", "ascend", "fake", "mori"]

    /// What the options ask for, checked.
    package struct Plan: Sendable, Equatable {
        package enum Role: Sendable, Equatable {
            case prefill(host: String, port: Int)
            case decode([TransferDialer.Target], localPrefillTokens: Int?)

            /// The hosts to listen on, or to dial.
            var hosts: [String] {
                switch self {
                case .prefill(let host, _): [host]
                case .decode(let targets, _): targets.map(\.host)
                }
            }
        }

        package let role: Role
        /// The bytes of the secret; empty for none.
        package let secret: [UInt8]
        package let backend: TransferBackend
    }

    /// Checks the options together, and reads the secret.
    ///
    /// - Returns: `nil` for a server that computes whole requests alone.
    /// - Throws: `CommandError` with all problems, a line each.
    package func plan(environment: [String: String]) throws -> Plan? {
        var problems = misplaced
        var (role, secret, backend): (Plan.Role?, [UInt8], TransferBackend) = (nil, [], .tcp)
        do throws(CommandError) {
            backend = try self.backend()
        } catch {
            problems.append(error.description)
        }
        do throws(CommandError) {
            role = try self.role()
        } catch {
            problems.append(error.description)
        }
        do throws(CommandError) {
            secret = try self.secret(environment)
        } catch {
            problems.append(error.description)
        }
        if let role, !role.hosts.allSatisfy(Loopback.contains), secret.isEmpty, problems.isEmpty {
            problems.append(
                "--disaggregation-secret-file: a server beyond this machine needs a secret that both servers have; make "
                    + "one with: openssl rand -hex 32 > secret, and protect it with chmod 600")
        }
        guard problems.isEmpty else { throw CommandError(problems.joined(separator: "\n")) }
        return role.map { Plan(role: $0, secret: secret, backend: backend) }
    }

    private func role() throws(CommandError) -> Plan.Role? {
        switch disaggregationMode {
        case .null: return nil
        case .decode: return .decode(try targets(), localPrefillTokens: disaggregationLocalPrefill)
        case .prefill:
            let host = disaggregationHost ?? "127.0.0.1"
            if host.isEmpty {
                throw CommandError(
                    "--disaggregation-host is empty; use 127.0.0.1 for this machine only, 0.0.0.0 for all")
            }
            return .prefill(host: host, port: disaggregationBootstrapPort)
        }
    }

    private func backend() throws(CommandError) -> TransferBackend {
        guard let name = disaggregationTransferBackend else { return .tcp }
        let option = "--disaggregation-transfer-backend"
        guard let backend = TransferBackend.allCases.first(where: { "\($0)" == name }) else {
            let legal = TransferBackend.allCases.map { "\($0)" }
            guard Self.otherBackends.contains(name) else {
                throw CommandError("\(option): '\(name)' is not legal; legal: \(legal.joined(separator: ", "))")
            }
            // Launch lines of other engines carry it even where nothing is sent.
            if disaggregationMode == .null { return .tcp }
            throw CommandError("\(option): \(name) is not supported; use \(legal.joined(separator: " or "))")
        }
        if backend == .ucx, disaggregationMode != .null, let problem = UCXLibrary.problem() {
            throw CommandError("\(option): \(problem)")
        }
        return backend
    }

    /// Options that need another mode.
    private var misplaced: [String] {
        let given: [(String, Bool, Mode)] = [
            ("--disaggregation-host", disaggregationHost != nil, .prefill),
            ("--disaggregation-prefill", disaggregationPrefill != nil, .decode),
            ("--disaggregation-local-prefill", disaggregationLocalPrefill != nil, .decode),
        ]
        var problems = given.filter { $0.1 && $0.2 != disaggregationMode }.map { name, _, mode in
            "\(name) needs --disaggregation-mode \(mode.rawValue), and the mode is \(disaggregationMode.rawValue)"
        }
        if disaggregationMode == .null, disaggregationSecretFile != nil {
            problems.append("--disaggregation-secret-file needs --disaggregation-mode prefill or decode")
        }
        return problems
    }

    private func targets() throws(CommandError) -> [TransferDialer.Target] {
        guard let list = disaggregationPrefill else {
            throw CommandError(
                "--disaggregation-mode decode needs the address of the prefill server: --disaggregation-prefill "
                    + "HOST:PORT")
        }
        var targets: [TransferDialer.Target] = []
        for text in list.split(separator: ",", omittingEmptySubsequences: false) {
            let target = try target(text.trimmingCharacters(in: .whitespaces))
            guard !targets.contains(target) else {
                throw CommandError("--disaggregation-prefill: \(target) is given twice")
            }
            targets.append(target)
        }
        return targets
    }

    private func target(_ text: String) throws(CommandError) -> TransferDialer.Target {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        var (host, port) = (text, disaggregationBootstrapPort)
        if text.hasPrefix("["), let end = text.firstIndex(of: "]") {
            host = String(text[text.index(after: text.startIndex)..<end])
            let rest = text[text.index(after: end)...]
            if !rest.isEmpty { port = rest.hasPrefix(":") ? Int(rest.dropFirst()) ?? -1 : -1 }
        } else if parts.count == 2 {
            host = parts[0]
            port = Int(parts[1]) ?? -1
        }
        guard !host.isEmpty, !host.contains("/"), (1...65_535).contains(port) else {
            throw CommandError("--disaggregation-prefill: '\(text)' is no address; write one such as 10.0.0.2:8998")
        }
        return TransferDialer.Target(host: host, port: port)
    }

    private func secret(_ environment: [String: String]) throws(CommandError) -> [UInt8] {
        guard disaggregationMode != .null else { return [] }
        let (given, name): ([UInt8], String)
        switch (disaggregationSecretFile, environment[Self.secretVariable]) {
        case (nil, nil): return []
        case (_?, _?):
            throw CommandError(
                "--disaggregation-secret-file: \(Self.secretVariable) is given as well; leave out one of them")
        case (nil, let text?): (given, name) = (Array(text.utf8), Self.secretVariable)
        case (let path?, nil): (given, name) = (try Self.read(path), "--disaggregation-secret-file")
        }
        // Editors end files with a line break, and secrets of different files must be equal.
        let secret = given.reversed().drop { $0 == 0x0A || $0 == 0x0D }.reversed()
        guard (Self.minSecretBytes...Self.maxSecretBytes).contains(secret.count) else {
            throw CommandError(
                "\(name): a secret has \(Self.minSecretBytes) to \(Self.maxSecretBytes) bytes, and this one "
                    + "\(secret.count); make one with: openssl rand -hex 32")
        }
        return Array(secret)
    }

    /// The seconds that the start waits for a secret from a pipe.
    private static let secretWait = 5

    /// Reads a file, or a pipe into which another program writes the secret. A pipe into which nobody writes is given up:
    /// a server that waits for it would never start.
    private static func read(_ path: String) throws(CommandError) -> [UInt8] {
        func refusal(_ problem: String) -> CommandError {
            CommandError("--disaggregation-secret-file: \(path) cannot be read: \(problem)")
        }
        let descriptor = unsafe open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { throw refusal(systemMessage(errno)) }
        defer { close(descriptor) }
        var facts = stat()
        let isPipe = unsafe fstat(descriptor, &facts) == 0 && facts.st_mode & S_IFMT == S_IFIFO
        let deadline = ContinuousClock.now + .seconds(secretWait)
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: maxSecretBytes + 2)
        while bytes.count < piece.count {
            let count = unsafe Foundation.read(descriptor, &piece, piece.count - bytes.count)
            if count > 0 {
                bytes += piece.prefix(count)
                continue
            }
            if count == 0, !isPipe || !bytes.isEmpty { break }
            if count < 0, errno == EINTR { continue }
            if count < 0, errno != EAGAIN { throw refusal(systemMessage(errno)) }
            guard ContinuousClock.now < deadline else {
                throw refusal("it is a pipe into which nothing was written within \(secretWait) s; give a file")
            }
            usleep(10_000)
        }
        return bytes
    }
}
