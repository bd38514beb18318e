import Disaggregation
import Inference
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5))) struct `Rooms of a prefill server` {
    private static let long = Duration.seconds(600)

    private static func events(_ generation: Generation) async -> [GenerationEvent] {
        await generation.events.reduce(into: []) { $0.append($1) }
    }

    private static let ended = [GenerationEvent.finished(.length, Usage(promptTokens: 3, completionTokens: 0))]

    @Test func `end posts that came before or after the decode server`() async {
        let rooms = PrefillRooms()
        rooms.settle(7)
        let late = rooms.generation(for: 7, promptTokens: 3, askedWithin: Self.long)
        #expect(await Self.events(late) == Self.ended)
        let posts = (0..<2).map { _ in rooms.generation(for: 8, promptTokens: 3, askedWithin: Self.long) }
        rooms.settle(9)
        #expect(rooms.waiterCount == 2)
        rooms.settle(8)
        for post in posts { #expect(await Self.events(post) == Self.ended) }
        #expect(rooms.waiterCount == 0)
    }

    @Test func `fail a post for which no decode server asks, and forget those who leave`() async {
        let rooms = PrefillRooms()
        let post = rooms.generation(for: 1, promptTokens: 3, askedWithin: .milliseconds(1))
        guard case .failed(let reason)? = await Self.events(post).first else {
            Issue.record("it has not failed")
            return
        }
        #expect(reason.contains("bootstrap_room 1"))
        let waiting = Task { await Self.events(rooms.generation(for: 2, promptTokens: 3, askedWithin: Self.long)) }
        #expect(await eventually { rooms.waiterCount == 1 })
        waiting.cancel()
        #expect(await waiting.value == [])
        #expect(await eventually { rooms.waiterCount == 0 })
    }

    @Test func `remember only the last of the settled ones`() async {
        let rooms = PrefillRooms()
        let count = UInt64(5 * PrefillRooms.remembered)
        for room in 0..<count { rooms.settle(room) }
        let last = rooms.generation(for: count - 1, promptTokens: 3, askedWithin: .zero)
        #expect(await Self.events(last) == Self.ended)
        let first = rooms.generation(for: 0, promptTokens: 3, askedWithin: .milliseconds(1))
        #expect(await Self.events(first) != Self.ended)
    }
}
