import Inference
import Parallelism
import Tensors
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(15))) struct `A handshake` {
    private static func card(
        _ model: String = "m", levels: [String] = ["reference", "avx2", "avx512"], system: String = "s", pid: Int = 7
    ) -> ProcessCard {
        ProcessCard(
            properties: [.init("build", "b"), .init("model", model)], levels: levels, host: "h", system: system,
            pid: pid)
    }

    /// Describes the differences, such as `model: m n`.
    private static func differences(_ cards: [ProcessCard], allowsMixedLevels: Bool = false) -> [String] {
        Handshake(cards).differences(allowsMixedLevels: allowsMixedLevels).map {
            "\($0.name): \($0.values.joined(separator: " "))"
        }
    }

    @Test func `of equal processes finds nothing`() {
        #expect(Self.differences([Self.card(), Self.card(pid: 8)]) == [])
    }

    @Test func `says who differs in what`() {
        let cards = [Self.card(), Self.card("n"), Self.card()]
        #expect(Self.differences(cards) == ["model: m n m"])
        #expect(Handshake(cards).names[1] == "process 1 on h")
    }

    @Test func `says who computes in another numerics profile, by the option`() throws {
        var cards = [Self.card(), Self.card()]
        for (index, dtype) in ["float32", "bfloat16"].enumerated() {
            cards[index].properties.append(.init("--dtype", dtype))
        }
        #expect(Self.differences(cards) == ["--dtype: float32 bfloat16"])
    }

    @Test func `lets processors differ where that is allowed, at the level all have`() {
        let cards = [Self.card(), Self.card(levels: ["reference", "avx2"])]
        #expect(Self.differences(cards) == ["instruction set: avx512 avx2"])
        #expect(Self.differences(cards, allowsMixedLevels: true) == [])
        #expect(Handshake(cards).commonLevel == .avx2)
    }

    @Test func `knows whose pids a process can see`() {
        var elsewhere = Self.card(pid: 4)
        elsewhere.host = "other"
        let handshake = Handshake([Self.card(pid: 1), Self.card(pid: 2), Self.card(system: "t", pid: 3), elsewhere])
        #expect(handshake.pids(seenBy: 0) == [nil, 2, nil, nil])
    }

    @Test func `brings every card to every process`() throws {
        let transports = InMemoryTransport.network(3)
        defer { for transport in transports { transport.leave() } }
        let found = try onEveryRank(of: 3) { process in
            let processes = Processes(transports[process])
            return (try Handshake(Self.card(pid: process), among: processes), processes)
        }
        for (handshake, _) in found { #expect(handshake.cards.map(\.pid) == [0, 1, 2]) }
    }
}
