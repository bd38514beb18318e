import Foundation
import JSON
import Serving

extension ServedModel {
    /// Describes the checkpoint in a directory, as far as its `config.json` tells.
    init(directory path: String) {
        let file = try? Data(contentsOf: URL(fileURLWithPath: path).appendingPathComponent("config.json"))
        let config = file.flatMap { try? JSONValue(parsing: $0) }
        self.init(
            path: path, type: config?["model_type"]?.string,
            architectures: config?["architectures"]?.array?.compactMap(\.string) ?? [])
    }
}
