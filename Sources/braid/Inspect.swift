import ArgumentParser
import Checkpoints
import Foundation
import KVCache
import Models
import Tensors

/// What a checkpoint is: its shape, its size, what its cache costs.
struct Inspect: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Says what a checkpoint is: layers, parameters, bytes, KV bytes per token.")

    @Option(name: [.customLong("model-path"), .customLong("model")], help: "The model's directory.")
    var modelPath: String

    @Flag(help: "Look at config.json alone; the weights need not be there.")
    var configOnly = false

    func run() throws {
        let directory = try ModelDirectory(modelPath)
        let model = directory.configuration
        show("model", "\(model.modelType), \(model.contextLength) positions, vocabulary \(model.vocabularySize)")
        let nextToken = model.nextTokenLayers > 0 ? ", \(model.nextTokenLayers) next-token block (not loaded)" : ""
        show("layers", "\(model.layers), \(model.denseLayers) dense, hidden \(model.hiddenSize)\(nextToken)")
        let keys = model.indexer.map { ", indexer \($0.heads) × \($0.width), top \($0.topK)" } ?? ", dense"
        show("attention", "\(model.heads) heads, latent \(model.latentWidth) + rotary \(model.ropeWidth)\(keys)")
        let gate = model.experts.gate
        show(
            "experts",
            "\(gate.experts) of width \(model.experts.width), \(gate.expertsPerToken) per token, "
                + "\(model.experts.shared) shared, groups \(gate.groups)/\(gate.topGroups)")
        let parameters = model.parameters
        show("parameters", "\(grouped(parameters.total)), \(grouped(parameters.active)) active per token")
        if !configOnly { try printWeights() }
        for type in [DType.f32, .bf16] {
            let bytes = model.cacheFormat(type, pageSize: 1).bytesPerToken
            let full = Int(bytes * Double(model.contextLength)) >> 20
            show("KV cache", "\(type): \(grouped(Int(bytes))) bytes per token, \(grouped(full)) MiB for a full context")
        }
    }

    private func show(_ title: String, _ text: String) {
        print(title.padding(toLength: 13, withPad: " ", startingAt: 0) + text)
    }

    private func printWeights() throws {
        let index = try WeightIndex(directory: modelPath)
        let size = "\(index.names.count) tensors in \(index.files.count) files, \(grouped(index.totalBytes)) bytes"
        show("weights", size)
        var byType: [String: Int] = [:]
        for name in index.names {
            let tensor = try index.tensor(named: name)
            byType[tensor.type.rawValue, default: 0] += tensor.byteCount
        }
        for (type, bytes) in byType.sorted(by: { $0.value > $1.value }) {
            show("", "\(type) \(grouped(bytes)) bytes")
        }
    }
}

/// 1234567 → 1 234 567.
func grouped(_ number: Int) -> String {
    var text = ""
    for (index, digit) in String(number).reversed().enumerated() {
        if index > 0, index % 3 == 0, digit != "-" { text = " " + text }
        text = String(digit) + text
    }
    return text
}
