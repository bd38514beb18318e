import Foundation

/// The number of token ids of a tokenizer and of a model, which belong to one release if they fit.
package struct VocabularySizes {
    /// One more than the tokenizer's largest id.
    private let tokenizer: Int
    private let model: Int
    private let tokenizerFile: String
    private let configurationFile: String

    /// - Parameters:
    ///   - tokenizer: one more than the tokenizer's largest id.
    ///   - tokenizerFolder: the directory of `tokenizer.json`.
    ///   - model: `vocab_size` of the model.
    ///   - modelFolder: the directory of `config.json`.
    package init(tokenizer: Int, in tokenizerFolder: String, model: Int, in modelFolder: String) {
        (self.tokenizer, self.model) = (tokenizer, model)
        tokenizerFile = tokenizerFolder + "/tokenizer.json"
        configurationFile = modelFolder + "/config.json"
    }

    private var sizes: String {
        "\(tokenizerFile) has \(tokenizer) ids, but \(configurationFile) says vocab_size \(model)"
    }

    private static let advice = "take tokenizer.json of this model's release, or give its directory as --tokenizer-path"

    /// Requires that the model has every id of the tokenizer.
    ///
    /// - Throws: `CommandError` naming both files and both sizes.
    package func check() throws {
        guard tokenizer > model else { return }
        throw CommandError(
            "\(sizes), so that \(tokenizer - model) tokens have no row in the model: tokenizer and model belong to different "
                + "releases, or tokens were added without resizing the model; \(Self.advice)")
    }

    /// A warning if the model has so many ids without text that the tokenizer is probably of another model. Releases leave
    /// at most a few in a hundred unused, to make the size divisible; `nil` for those.
    package var warning: String? {
        guard tokenizer < model - model / 8 else { return nil }
        return
            "\(sizes): ids from \(tokenizer) on have no text, which are unusually many; if answers have gaps or make no "
            + "sense, \(Self.advice)"
    }
}
