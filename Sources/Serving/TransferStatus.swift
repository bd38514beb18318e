import JSON

/// The state of a server's exchange of keys with another one, for `/server_info` and `/metrics`.
package struct TransferStatus: Sendable, Equatable {
    /// What the server does for the other one, or the other one for it: `prefill` or `decode`.
    package var mode: String
    /// The other server's address; `nil` if there is none.
    package var peer: String?
    /// Why there is no session; `nil` while there is one.
    package var problem: String?
    /// The number of prompts that are being computed by one server for the other.
    package var transfers = 0
    /// The number of sessions that ended, and of attempts to begin one that failed.
    package var failures: UInt64 = 0
    /// The bytes of keys since the start, with their headers.
    package var sentBytes: UInt64 = 0
    package var receivedBytes: UInt64 = 0

    package init(mode: String, problem: String? = nil) {
        self.mode = mode
        self.problem = problem
    }

    var json: JSONValue {
        .fields([
            "mode": .string(mode), "peer": .optional(peer), "connected": .bool(problem == nil),
            "problem": .optional(problem),
        ])
    }

    func write(to page: inout MetricsPage) {
        page.single(
            "disaggregation_connected", "gauge", "1 while there is a session with the other server.",
            problem == nil ? 1 : 0)
        page.single(
            "disaggregation_transfers", "gauge", "Prompts that one server computes for the other.", Double(transfers))
        page.single(
            "disaggregation_session_failures_total", "counter",
            "Sessions with the other server that ended, and attempts that failed.", Double(failures))
        page.family("kv_transfer_bytes_total", "counter", "Bytes of keys, with their headers.")
        for (direction, bytes) in [("sent", sentBytes), ("received", receivedBytes)] {
            page.sample("kv_transfer_bytes_total", Double(bytes), labels: [("direction", direction)])
        }
    }
}
