import ArgumentParser
import Checkpoints
import Foundation
import Models

/// These options say where the files of a checkpoint are, and what the user expects of them.
package struct CheckpointOptions: ParsableArguments, Sendable {
    @Option(help: "The revision in Hugging Face's download cache: a branch, tag or commit; default: main.")
    var revision: String?

    @Option(help: "Hugging Face's download cache; default: as HF_HUB_CACHE and HF_HOME say. Nothing is downloaded.")
    var downloadDir: String?

    @Option(
        help: """
            The quantization that the checkpoint must have, such as fp8 or w8a8_int8; default: any. That of INT8 weights \
            also chooses --dtype int8.
            """)
    var quantization: String?

    package init() {}

    /// - Throws: an error if the checkpoint is not what the options say it is.
    func check(_ directory: ModelDirectory) throws {
        guard let quantization else { return }
        let isThat = Self.format(quantization).map { $0 == directory.quantizedFormat }
        if isThat ?? (quantization == directory.quantization) { return }
        throw CommandError(
            "--quantization: the checkpoint has \(directory.quantization ?? "none"), not \(quantization), and is never "
                + "converted; leave the option out, or use a checkpoint that has it")
    }

    /// True if the options ask for INT8 weights, and so for activations in INT8.
    var wantsIntegers: Bool { quantization.flatMap(Self.format) == .int8 }

    /// Returns the element format of a quantization that is named after it; `nil` for other names, also of families that
    /// have several.
    private static func format(_ name: String) -> QuantizationConfiguration.Format? {
        switch name {
        case "w8a8_int8", "int8", "blockwise_int8", "modelslim": .int8
        case "w8a8_fp8", "fp8", "deepseek_fp8": .fp8
        default: nil
        }
    }
}

/// This option belongs to every command that converts text.
struct TokenizerOptions: ParsableArguments, Sendable {
    @Option(
        name: [.customLong("tokenizer-path"), .customLong("tokenizer")],
        help: "The directory of tokenizer.json; default: the model's.")
    var tokenizerPath: String?

    func validate() throws {
        guard tokenizerPath != "" else {
            throw ValidationError("--tokenizer-path is empty; leave it out, or give the directory of tokenizer.json")
        }
    }

    /// Returns the directory of the tokenizer.
    func directory(_ model: ModelDirectory) -> URL { URL(fileURLWithPath: tokenizerPath ?? model.path) }
}
