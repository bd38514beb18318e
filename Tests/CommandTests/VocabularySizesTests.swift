import Testing
import braid

@Suite struct `The sizes of tokenizer and model` {
    private static func sizes(_ tokenizer: Int, _ model: Int) -> VocabularySizes {
        VocabularySizes(tokenizer: tokenizer, in: "/tokens", model: model, in: "/model")
    }

    @Test(arguments: [(128_815, 129_280), (129_280, 129_280), (151_365, 154_880)])
    func `fit where the model has a few ids more`(tokenizer: Int, model: Int) throws {
        try Self.sizes(tokenizer, model).check()
        #expect(Self.sizes(tokenizer, model).warning == nil)
    }

    @Test(arguments: [(129_281, 129_280, 1), (154_880, 129_280, 25_600)])
    func `are refused where the tokenizer has more`(tokenizer: Int, model: Int, more: Int) throws {
        let error = try #require(throws: (any Error).self) { try Self.sizes(tokenizer, model).check() }
        for words in [
            "/tokens/tokenizer.json has \(tokenizer) ids", "/model/config.json says vocab_size \(model)",
            "\(more) tokens have no row", "--tokenizer-path",
        ] {
            #expect("\(error)".contains(words), "\(error)")
        }
    }

    @Test func `are warned of where the model has many more`() throws {
        try Self.sizes(100_000, 129_280).check()
        let warning = try #require(Self.sizes(100_000, 129_280).warning)
        for words in ["/tokens/tokenizer.json has 100000 ids", "vocab_size 129280", "--tokenizer-path"] {
            #expect(warning.contains(words), "\(warning)")
        }
    }
}
