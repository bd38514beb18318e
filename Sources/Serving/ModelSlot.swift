import Foundation
import Inference
import Synchronization

/// The place of the service in a server that answers before the model is loaded and while it shuts down.
package final class ModelSlot: Sendable {
    private enum Content {
        case loading
        case loaded(TextService)
        case failed(String)
    }

    private struct State {
        var content: Content
        var isDraining = false
    }

    private let state: Mutex<State>
    let metrics = ServerMetrics()
    /// For requests being read and answers being collected.
    let memory: MemoryBudget
    /// Seconds since 1970 when the server was set up.
    let created = Int(Date().timeIntervalSince1970)

    /// - Parameters:
    ///   - service: `nil` while the model is still being loaded.
    ///   - memory: bytes for requests being read and answers being collected, all together.
    package init(_ service: TextService? = nil, memory: Int = 1 << 30) {
        self.memory = MemoryBudget(total: memory)
        state = Mutex(State(content: service.map(Content.loaded) ?? .loading))
    }

    package func fill(with service: TextService) {
        state.withLock { $0.content = .loaded(service) }
    }

    /// Says that loading did not work, and why.
    package func fail(_ reason: String) {
        state.withLock { $0.content = .failed(reason) }
    }

    /// From now on new work is refused; what runs goes on.
    package func startDraining() {
        state.withLock { $0.isDraining = true }
    }

    /// The service, also of a server that takes no new work.
    var loaded: TextService? {
        state.withLock { if case .loaded(let service) = $0.content { service } else { nil } }
    }

    /// Why nothing will ever be served here: neither while loading nor while draining, which are in order.
    var failure: RequestError? {
        switch state.withLock({ $0.content }) {
        case .loading: nil
        case .failed(let reason): Self.notLoaded(reason)
        case .loaded(let service):
            if case .failed(let reason)? = service.engine.refusal {
                RequestError(EngineError.failed(reason))
            } else {
                nil
            }
        }
    }

    private static func notLoaded(_ reason: String) -> RequestError {
        RequestError(.unavailable, "the model could not be loaded: \(reason)", code: "engine_failed")
    }

    /// The service for new work.
    /// - Throws: why there is none now.
    func service() throws(RequestError) -> TextService {
        let state = self.state.withLock { $0 }
        if state.isDraining { throw .draining }
        switch state.content {
        case .loading:
            throw RequestError(
                .unavailable, "the model is still being loaded; try again when /ready answers 200", code: "loading")
        case .failed(let reason): throw Self.notLoaded(reason)
        case .loaded(let service):
            if let refusal = service.engine.refusal { throw RequestError(refusal) }
            return service
        }
    }
}
