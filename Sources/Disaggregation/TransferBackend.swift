/// A transfer backend is the way of frames from one server to another. Messages always go over TCP.
package enum TransferBackend: Int, Sendable, CaseIterable, CustomStringConvertible {
    /// A TCP connection of their own.
    case tcp
    /// What UCX finds between the servers: RDMA, shared memory, or TCP.
    case ucx

    package var description: String {
        switch self {
        case .tcp: "tcp"
        case .ucx: "ucx"
        }
    }
}
