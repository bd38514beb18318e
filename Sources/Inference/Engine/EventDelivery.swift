import Synchronization

/// Brings events to the streams of their requests, in their order, although many threads change the engine's state.
final class EventDelivery: Sendable {
    typealias Stream = AsyncStream<GenerationEvent>.Continuation
    private typealias Delivery = (Stream, GenerationEvent, last: Bool)

    /// Maps each request to its stream. It has a lock of its own because a thread that trapped may hold the engine's lock
    /// forever.
    private let streams = Mutex<[UInt64: Stream]>([:])
    /// The events that wait to be delivered, and whether a thread delivers some. Only one does at a time, so that none
    /// overtakes another one with later events.
    private let deliveries = Mutex((waiting: [Delivery](), isDelivering: false))

    /// Adds the stream of a new request.
    func add(_ stream: Stream, for request: UInt64) { streams.withLock { $0[request] = stream } }

    /// Ends every stream with a failure, past the queue. It takes the lock of the streams only.
    func end(with reason: String) {
        let streams = streams.withLock { streams in
            defer { streams = [:] }
            return Array(streams.values)
        }
        for stream in streams {
            stream.yield(.failed(reason))
            stream.finish()
        }
    }

    /// Queues events with the streams of their requests, and removes the streams of requests that ended. It is called
    /// under the engine's lock, so that the events of a request are queued in their order.
    func queue(_ events: [Scheduler.Event]) {
        if events.isEmpty { return }
        let added: [Delivery] = streams.withLock { streams in
            events.compactMap { event in
                guard let stream = streams[event.request] else { return nil }
                switch event.event {
                case .finished, .failed:
                    streams[event.request] = nil
                    return (stream, event.event, last: true)
                case .token, .promptLogProbs:
                    return (stream, event.event, last: false)
                }
            }
        }
        deliveries.withLock { $0.waiting += added }
    }

    /// Delivers the queued events in their order, whichever threads queued them, unless a thread does so already: it then
    /// delivers these too. It must be called without the engine's lock, because ending a stream, or releasing it, may call
    /// `Engine.abort`, and so this function again.
    func deliver() {
        while let next = takeWaiting() {
            for (stream, event, last) in next {
                stream.yield(event)
                if last { stream.finish() }
            }
            deliveries.withLock { $0.isDelivering = false }
        }
    }

    /// Returns the queued events, and marks this thread as the one that delivers them; `nil` if there are none, or another
    /// thread delivers.
    private func takeWaiting() -> [Delivery]? {
        deliveries.withLock { deliveries in
            if deliveries.isDelivering || deliveries.waiting.isEmpty { return nil }
            defer { deliveries = ([], true) }
            return deliveries.waiting
        }
    }
}
