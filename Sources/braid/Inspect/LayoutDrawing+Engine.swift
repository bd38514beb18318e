package import Inference
import Modeling
package import Models
package import Serving
import Tensors

extension LayoutDrawing {
    /// Draws what the ranks of an engine make of a model, as `inspect --svg` does: with an example prompt, by
    /// `config.json` alone.
    package init(_ directory: ModelDirectory, _ engine: EngineConfiguration) {
        let model = directory.description
        // A server must not wait for a drawing of thousands of steps.
        let chunk =
            engine.chunkedPrefillSize > 0 ? max(engine.chunkedPrefillSize, Self.exampleTokens / 64) : Self.exampleTokens
        let report = LayoutReport(
            directory.name, model, engine.parallel, threadsPerRank: engine.threadsPerRank,
            cacheType: engine.cacheType, profile: engine.profile,
            format: directory.configuration.cacheFormat(engine.cacheType, pageSize: engine.pageSize, drafts: false),
            example: .init(tokens: Self.exampleTokens, chunk: chunk), memory: 0,
            weightBytes: { model.formats.bytes(of: $0) })
        self.init(svg: report.drawing, colours: report.colours)
    }

    /// The default of `inspect --tokens`.
    private static let exampleTokens = 4096
}
