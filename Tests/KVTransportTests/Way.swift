import Disaggregation
import KVTransport
import Testing

/// The way of frames between two servers in a test.
enum Way: CaseIterable, Sendable, CustomTestStringConvertible {
    case tcp, ucxOverTCP, ucxOverSharedMemory

    /// The ways of which this machine has the libraries. Where it has no UCX, a test that is skipped says so.
    static let usable = allCases.filter { $0 == .tcp || UCXLibrary.problem() == nil }

    var backend: TransferBackend { self == .tcp ? .tcp : .ucx }

    var settings: UCXSettings { UCXSettings(transports: self == .ucxOverSharedMemory ? "posix,self" : "tcp,self") }

    var prefill: ServerCard { card(Cards.prefill) }
    var decode: ServerCard { card(Cards.decode) }

    private func card(_ card: ServerCard) -> ServerCard {
        var card = card
        card.backend = backend
        return card
    }

    var testDescription: String {
        switch self {
        case .tcp: "TCP"
        case .ucxOverTCP: "UCX over TCP"
        case .ucxOverSharedMemory: "UCX over shared memory"
        }
    }
}
