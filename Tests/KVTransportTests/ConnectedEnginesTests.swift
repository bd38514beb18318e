import Disaggregation
import Inference
import KVTransport
import Models
import Parallelism
import Synchronization
import TestSupport
import Testing

/// A prefill and a decode engine that are connected.
private final class Engines: Sendable {
    let prefill: Engine
    let decode: Engine
    let sending: PrefillEndpoint
    let receiving: DecodeEndpoint
    private let cards: (prefill: ServerCard, decode: ServerCard)
    private let links = Mutex([SessionLink]())
    private let ucx: UCXSettings

    init(_ way: Way) throws {
        ucx = way.settings
        var prefillSettings = EngineConfiguration()
        prefillSettings.pageSize = 64
        prefillSettings.chunkedPrefillSize = 7
        prefillSettings.checksInvariants = true
        prefillSettings.parallel = ParallelConfiguration(context: 2, pipeline: 2)
        var decodeSettings = prefillSettings
        decodeSettings.pageSize = 16
        decodeSettings.parallel = ParallelConfiguration(tensor: 2)
        let model = try Golden("v32").directory.load()
        var prefillCard = ServerCard(model, prefillSettings, digest: "v32")
        var decodeCard = ServerCard(model, decodeSettings, digest: "v32")
        (prefillCard.backend, decodeCard.backend) = (way.backend, way.backend)
        cards = (prefillCard, decodeCard)
        (prefill, decode) = (Engine(model, prefillSettings), Engine(model, decodeSettings))
        var policy = PrefillPolicy()
        policy.localPrefillTokens = 0
        sending = PrefillEndpoint(cards.prefill, maxFrameBytes: 2048)
        receiving = DecodeEndpoint(cards.decode, policy)
        prefill.attach(sending)
        decode.attach(receiving)
    }

    func listener() -> TransferListener {
        let (endpoint, engine) = (sending, prefill)
        return TransferListener(
            cards.prefill, TransferSecret(),
            TransferListener.Hooks(
                refusal: { endpoint.failure == nil ? "busy" : nil },
                begin: { opening throws(TransferFailure) in
                    try endpoint.begin(opening.number, to: opening.card, over: opening.link, for: engine)
                }, log: { _ in }), ucx: ucx)
    }

    func dialer(port: Int) -> TransferDialer {
        let (endpoint, engine) = (receiving, decode)
        return TransferDialer(
            TransferDialer.Target(host: "127.0.0.1", port: port), cards.decode, TransferSecret(), ucx: ucx,
            begin: { opening throws(TransferFailure) in
                self.links.withLock { $0.append(opening.link) }
                try endpoint.begin(opening.number, from: opening.card, over: opening.link, for: engine)
            }, log: { _ in })
    }

    /// Cuts the link of the last session.
    func cut() { links.withLock { $0.last }?.close("the cable was pulled") }
}

@Suite(.serialized, .timeLimit(.minutes(10))) struct `Two engines` {
    @Test(arguments: Way.usable)
    func `answer as one does, also when the link is cut, or a server is stopped`(_ way: Way) async throws {
        let engines = try Engines(way)
        defer {
            engines.decode.stop()
            engines.prefill.stop()
        }
        let listener = engines.listener()
        let port = try listener.start(host: "127.0.0.1", port: 0)
        let dialer = engines.dialer(port: port)
        dialer.start()
        for round in 0..<4 {
            #expect(await eventually { engines.receiving.failure == nil && engines.sending.failure == nil })
            let requests = GenerationRequest.mixed(salt: "\(round)")
            let expected = try await engines.prefill.answers(to: GenerationRequest.mixed(salt: "alone \(round)"))
            let sent = listener.traffic.sent.load(ordering: .relaxed)
            async let found = engines.decode.answers(to: requests, .decode)
            if round % 2 == 1 {
                #expect(await eventually { listener.traffic.sent.load(ordering: .relaxed) >= sent + 5000 })
                engines.cut()
            }
            #expect(try await found == expected, "round \(round)")
            #expect(listener.traffic.sent.load(ordering: .relaxed) > sent)
        }
        #expect(await eventually { dialer.failures >= 2 })
        // A server that is stopped ends its session at once, and says so.
        #expect(await eventually { engines.receiving.failure == nil })
        engines.prefill.stop("it is stopped")
        #expect(await eventually { engines.receiving.failure?.contains("it is stopped") ?? false })
        #expect(await eventually { engines.decode.status().usedPages == 0 && engines.receiving.transferCount == 0 })
        #expect(engines.decode.checkInvariants() == [])
        dialer.stop()
        listener.stop()
        #expect(await eventually { engines.receiving.failure != nil })
    }
}
