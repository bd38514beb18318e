import Foundation

/// The conditions that must hold once all attackers have left: nothing runs or waits, every page is free, no request failed through
/// the server, and descriptors and memory are as before.
struct Accounting {
    private let server: ServerProcess
    private let descriptors: Int
    private let resident: Int
    /// Descriptors that come and go with the number of threads.
    private static let spareDescriptors = 8
    /// Memory that the allocator keeps for later in each of its arenas, of which glibc has eight for a processor: after
    /// bodies of up to 32 MiB it is more or less by chance, also twice what it was. What leaks grows with every request.
    private static let spareBytes = 256 << 20

    /// Notes what the server uses before the attack.
    init(_ server: ServerProcess) {
        self.server = server
        descriptors = server.descriptorCount
        resident = server.residentBytes
    }

    /// Returns each check with what is wrong, or `nil`.
    func checks() -> [(name: String, problem: String?)] {
        [
            ("every page, request and status is accounted for", problem { try accounts() }),
            (
                "descriptors are returned",
                problem { try usage(\.descriptorCount, descriptors, Self.spareDescriptors) { "\($0)" } }
            ),
            (
                "memory is returned",
                problem { try usage(\.residentBytes, resident, Self.spareBytes) { "\($0 >> 20) MiB" } }
            ),
            ("the server ends on SIGTERM with status 0", problem { try server.stop() }),
        ]
    }

    private func problem(_ check: () throws -> Void) -> String? {
        do {
            try check()
            return nil
        } catch {
            return "\(error)"
        }
    }

    private func accounts() throws {
        let deadline = ContinuousClock.now + Patience.generation
        var (values, statuses) = try server.metrics()
        while values["num_running_reqs"] != 0 || values["num_queue_reqs"] != 0 || values["kv_pages_used"] != 0 {
            guard ContinuousClock.now < deadline else {
                throw Finding(
                    "\(Patience.generation) later there are \(values["num_running_reqs"] ?? -1) running and "
                        + "\(values["num_queue_reqs"] ?? -1) waiting requests, "
                        + "\(values["kv_pages_used"] ?? -1) pages in use"
                )
            }
            usleep(50_000)
            (values, statuses) = try server.metrics()
        }
        let sum = (values["kv_pages_free"] ?? -1) + (values["cached_pages"] ?? -1)
        guard sum == values["kv_pages"] else {
            throw Finding("\(sum) pages of \(values["kv_pages"] ?? -1)")
        }
        guard try server.get("/flush_cache", method: "POST").status == 200 else { throw Finding("/flush_cache fails") }
        values = try server.metrics().values
        guard values["kv_pages_free"] == values["kv_pages"] else {
            throw Finding(
                "after a flush \(values["kv_pages_free"] ?? -1) pages of \(values["kv_pages"] ?? -1) are free")
        }
        let broken = statuses.filter { $0.key >= 500 }
        guard broken.isEmpty else { throw Finding("responses with a server's error, by status: \(broken)") }
        for (name, expected) in [("failed_requests_total", 0.0), ("engine_up", 1), ("engine_restarts_total", 0)] {
            guard values[name] == expected else { throw Finding("\(name) is \(values[name] ?? -1)") }
        }
        let counts = statuses.sorted { $0.key < $1.key }.map { "\($0.key): \(Int($0.value))" }
        say("responses by status: \(counts.joined(separator: ", "))")
    }

    /// Waits until a number is back at what it was, within a tenth.
    private func usage(
        _ value: KeyPath<ServerProcess, Int>, _ before: Int, _ spare: Int, _ shown: (Int) -> String
    ) throws {
        let deadline = ContinuousClock.now + Patience.answer
        let most = before + max(before / 10, spare)
        while server[keyPath: value] > most, ContinuousClock.now < deadline { usleep(100_000) }
        let after = server[keyPath: value]
        say("    \(shown(before)) before, \(shown(after)) after")
        if after > most { throw Finding("\(shown(before)) before, \(shown(after)) after") }
    }
}
