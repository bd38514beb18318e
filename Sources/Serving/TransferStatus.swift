import JSON

/// The state of a server's exchange of keys with others, for `/server_info` and `/metrics`.
package struct TransferStatus: Sendable, Equatable {
    /// What the server does for the others, or they for it: `prefill` or `decode`.
    package var mode: String
    /// How keys are sent: `tcp` or `ucx`.
    package var backend: String
    /// The other servers: those that a decode server was given, or those that have a session with a prefill server.
    package var peers: [Peer] = []
    /// The number of prompts that are being computed by one server for another.
    package var transfers = 0
    /// The number of sessions that ended, and of attempts to begin one that failed.
    package var failures: UInt64 = 0
    /// The bytes of keys since the start, with their headers.
    package var sentBytes: UInt64 = 0
    package var receivedBytes: UInt64 = 0

    /// Another server.
    package struct Peer: Sendable, Equatable {
        package let address: String
        /// Why there is no session with it; `nil` while there is one.
        package let problem: String?

        package init(address: String, problem: String? = nil) {
            self.address = address
            self.problem = problem
        }
    }

    package init(mode: String, backend: String = "tcp", peers: [Peer] = []) {
        self.mode = mode
        self.backend = backend
        self.peers = peers
    }

    private var sessions: Int { peers.count { $0.problem == nil } }

    var json: JSONValue {
        .fields([
            "mode": .string(mode), "transfer_backend": .string(backend), "connected": .bool(sessions > 0),
            "peers": .array(
                peers.map { peer in
                    .fields([
                        "address": .string(peer.address), "connected": .bool(peer.problem == nil),
                        "problem": .optional(peer.problem),
                    ])
                }),
        ])
    }

    func write(to page: inout MetricsPage) {
        page.single("disaggregation_sessions", "gauge", "Sessions with other servers.", Double(sessions))
        page.single(
            "disaggregation_transfers", "gauge", "Prompts that one server computes for another.", Double(transfers))
        page.single(
            "disaggregation_session_failures_total", "counter",
            "Sessions with other servers that ended, and attempts that failed.", Double(failures))
        page.family("kv_transfer_bytes_total", "counter", "Bytes of keys, with their headers.")
        for (direction, bytes) in [("sent", sentBytes), ("received", receivedBytes)] {
            page.sample(
                "kv_transfer_bytes_total", Double(bytes), labels: [("direction", direction), ("backend", backend)])
        }
    }
}
