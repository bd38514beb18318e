package import Inference
package import KVCache
package import Modeling
import Parallelism
import Tensors

/// A server card describes a server to the one that it exchanges keys with, before any request does.
package struct ServerCard: Sendable, Equatable {
    /// The version of messages and frames.
    package var protocolVersion = 5
    /// An id of this start of the server, which no other has.
    package var engine = ""
    /// The way of frames, which both servers must have been told.
    package var backend = TransferBackend.tcp
    /// The numerics profile, and the version of all profiles.
    package var numerics: String
    /// The digest of the model's files.
    package var model: String
    package var placement: CachePlacement
    /// The number of the model's layers, without those of the next-token block.
    package var layers: Int
    /// The number of tokens that are drafted for a request.
    package var drafts: Int
    package var vocabularySize: Int

    init(
        numerics: String, model: String, placement: CachePlacement, layers: Int, drafts: Int, vocabularySize: Int
    ) {
        self.numerics = numerics
        self.model = model
        self.placement = placement
        self.layers = layers
        self.drafts = drafts
        self.vocabularySize = vocabularySize
    }

    /// - Parameters:
    ///   - configuration: that of the server, with the number of its processes.
    ///   - digest: identifies the model's files.
    package init(_ model: any Model, _ configuration: EngineConfiguration, digest: String) {
        numerics = "\(configuration.profile.name), version \(NumericsProfile.version)"
        self.model = digest
        layers = model.description.layers.count
        placement = CachePlacement(model, configuration)
        drafts = configuration.drafts
        vocabularySize = model.vocabularySize
        engine = (0..<2).map { _ in String(UInt64.random(in: .min ... .max), radix: 16) }.joined(separator: "-")
    }

    /// The layers whose keys a decode server with this card needs: those of the next-token block only if it drafts
    /// tokens.
    package var receivedLayers: Range<Int> { 0..<(drafts > 0 ? placement.format.layers.count : layers) }

    /// Returns why a prefill server's keys would not give a decode server the answers that it computes alone; empty if
    /// they do, in layouts whose answers are bitwise equal to one rank's. Layouts, page sizes and builds may differ. The
    /// first value is the prefill server's.
    package static func differences(prefill: ServerCard, decode: ServerCard) -> [Handshake.Difference] {
        func difference(_ name: String, _ value: (ServerCard) -> String) -> Handshake.Difference {
            Handshake.Difference(name: name, values: [value(prefill), value(decode)])
        }
        let needed = decode.receivedLayers
        let compared = [
            difference("protocol version") { "\($0.protocolVersion)" }, difference("numerics") { $0.numerics },
            difference("--disaggregation-transfer-backend") { "\($0.backend)" },
            difference("model") { $0.model }, difference("vocabulary size") { "\($0.vocabularySize)" },
            difference("layers") { "\($0.layers)" },
            difference("cache entries") { $0.placement.format.entries(ofLayers: needed) },
        ]
        var found = compared.filter { $0.values[0] != $0.values[1] }
        if decode.drafts > 0, prefill.drafts == 0 {
            found.append(difference("tokens drafted at a time") { "\($0.drafts)" })
        }
        return found
    }
}

extension CacheFormat {
    /// The key sets of some layers in words, such as `60 layers: keys (bf16 512, bf16 64)`.
    package func entries(ofLayers range: Range<Int>) -> String {
        var runs: [(count: Int, text: String)] = []
        for layer in layers[range.clamped(to: layers.indices)] {
            let text = layer.map { set in
                let lanes = set.lanes.map { lane in
                    "\(lane.dtype) \(lane.width)" + (lane.group == lane.width ? "" : " by \(lane.group)")
                        + (lane.scaleType == .f32 ? "" : " with \(lane.scaleType) scales")
                }
                let window = set.window.map { ", window \($0)" } ?? ""
                let tokens = set.tokensPerEntry == 1 ? "" : ", \(set.tokensPerEntry) tokens"
                let every = set.readEvery == 1 ? "" : ", read every \(set.readEvery) tokens"
                let readers = set.isReadByLaterLayers ? ", read by later layers" : ""
                return "\(set.name) (\(lanes.joined(separator: ", "))\(tokens)\(window)\(every)\(readers))"
            }.joined(separator: " + ")
            if runs.last?.text == text { runs[runs.count - 1].count += 1 } else { runs.append((1, text)) }
        }
        return runs.map { "\($0.count) layers: \($0.text)" }.joined(separator: "; ")
    }
}
