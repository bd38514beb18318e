/// The rule that chooses a worker for a request.
package enum RoutingPolicy: String, Sendable, CaseIterable {
    /// The least sum of work: of prompts that no cache has, of requests, and of used pages.
    case cacheAware = "cache_aware"
    /// The one with fewer requests of two that are drawn.
    case powerOfTwo = "power_of_two"
    case roundRobin = "round_robin"
    case random

    /// A worker that may be chosen.
    package struct Candidate: Sendable {
        package var load: WorkerLoad
        /// The bytes at the beginning of the request's text that the worker has seen.
        package var matchedBytes: Int
        /// True if another server computes the worker's prompts.
        package var isDecodeServer: Bool

        package init(load: WorkerLoad, matchedBytes: Int = 0, isDecodeServer: Bool = false) {
            self.load = load
            self.matchedBytes = matchedBytes
            self.isDecodeServer = isDecodeServer
        }

        /// The bytes of prompt that are about as much work as a step's row of every token of one answer.
        static let bytesOfRequest = 1024.0
        /// The bytes of prompt that are about as much work as the attention to a cache that is full.
        static let bytesOfFullCache = 16_384.0
        /// The work of receiving the keys of a prompt, as a part of computing them.
        static let workOfReceiving = 0.1

        /// The work that is before a request of so many bytes and its own, in bytes of prompt.
        package func cost(ofBytes bytes: Int) -> Double {
            let prompts = Double(load.waitingBytes + max(0, bytes - matchedBytes))
            return (isDecodeServer ? Self.workOfReceiving : 1) * prompts
                + Self.bytesOfRequest * Double(load.requests) + Self.bytesOfFullCache * load.usage
        }
    }

    /// Returns the index of the chosen candidate; `nil` if there is none.
    ///
    /// - Parameters:
    ///   - bytes: the bytes of the request's text.
    ///   - turn: a number that grows by one with every choice, which decides between equal candidates.
    ///   - random: returns a random number below its argument.
    package func choose(
        from candidates: [Candidate], bytes: Int, turn: Int, random: (Int) -> Int
    ) -> Int? {
        guard !candidates.isEmpty else { return nil }
        let first = turn % candidates.count
        switch self {
        case .roundRobin: return first
        case .random: return random(candidates.count)
        case .powerOfTwo:
            guard candidates.count > 1 else { return 0 }
            let one = random(candidates.count)
            let other = (one + 1 + random(candidates.count - 1)) % candidates.count
            return candidates[other].load.requests < candidates[one].load.requests ? other : one
        case .cacheAware:
            // In the order of turns, so that the first of equal ones is the next in turn.
            let order = candidates.indices.map { ($0 + first) % candidates.count }
            let ranks = candidates.map { candidate in
                (
                    candidate.load.hasRoom(forBytes: bytes - candidate.matchedBytes) ? 0 : 1,
                    candidate.cost(ofBytes: bytes), candidate.load.sent
                )
            }
            return order.min { ranks[$0] < ranks[$1] }
        }
    }
}
