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

    @Option(help: "The quantization that the checkpoint must have, such as fp8 or w8a8_int8; default: any.")
    var quantization: String?

    package init() {}

    /// - Throws: an error if the checkpoint is not what the options say it is.
    func check(_ directory: ModelDirectory) throws {
        guard let quantization, Self.family(quantization) != directory.quantization.map(Self.family) else { return }
        throw CommandError(
            "--quantization: the checkpoint has \(directory.quantization ?? "none"), not \(quantization), and is never "
                + "converted; leave the option out, or use a checkpoint that has it")
    }

    /// Returns one name for the names of a quantization that mean the same weights.
    private static func family(_ name: String) -> String {
        switch name {
        case "w8a8_int8", "int8", "blockwise_int8": "int8"
        case "w8a8_fp8", "fp8", "deepseek_fp8": "fp8"
        default: name
        }
    }
}

/// This option belongs to every command that converts text.
struct TokenizerOptions: ParsableArguments, Sendable {
    @Option(
        name: [.customLong("tokenizer-path"), .customLong("tokenizer")],
        help: "The directory of tokenizer.json; default: the model's.")
    var tokenizerPath: String?

    /// Returns the directory of the tokenizer.
    func directory(_ model: ModelDirectory) -> URL { URL(fileURLWithPath: tokenizerPath ?? model.path) }
}
