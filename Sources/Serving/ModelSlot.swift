import Foundation
import Inference
import Synchronization

/// A reference to the service that is empty until the model is loaded, so that the server can answer before that, and
/// while it drains.
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
    let running = RunningRequests()
    /// The memory for requests being read and answers being collected.
    let memory: MemoryBudget
    /// The time when the server was created, in seconds since 1970.
    let created = Int(Date().timeIntervalSince1970)
    let started = ContinuousClock.now

    /// Creates a slot.
    ///
    /// - Parameters:
    ///   - service: the service; `nil` while the model is being loaded.
    ///   - memory: the bytes for all requests being read and answers being collected.
    package init(_ service: TextService? = nil, memory: Int = MemoryBudget.usualTotal) {
        self.memory = MemoryBudget(total: memory)
        state = Mutex(State(content: service.map(Content.loaded) ?? .loading))
    }

    package func fill(with service: TextService) {
        state.withLock { $0.content = .loaded(service) }
    }

    /// Records that loading failed, and why.
    package func fail(_ reason: String) {
        state.withLock { $0.content = .failed(reason) }
    }

    /// Refuses new requests from now on; running ones go on.
    package func startDraining() {
        state.withLock { $0.isDraining = true }
    }

    /// The service, even if the server refuses new requests.
    var loaded: TextService? {
        state.withLock { if case .loaded(let service) = $0.content { service } else { nil } }
    }

    /// The failure after which this server can never serve; `nil` while it loads, serves or drains.
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

    /// Returns the service for a new request.
    ///
    /// - Throws: the reason why there is none now.
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
