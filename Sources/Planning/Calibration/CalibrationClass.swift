import Modeling
package import Parallelism

/// Predictions that are wrong for the same reasons, and so have one record of errors: the same family of devices, the
/// same quantity, and the same parts of the engine.
package struct CalibrationClass: Hashable, Sendable, CustomStringConvertible {
    package let family: String
    /// The model's type and its number of parameters: others of the family differ in what they compute.
    package let modelType: String
    package let parameters: Int
    package let quantity: PublishedTable.Quantity
    /// What of the layout takes part, such as "context, gathered experts".
    package let parts: String

    package init(
        _ model: PlannedModel, _ hardware: Hardware, _ quantity: PublishedTable.Quantity,
        _ parallel: ParallelConfiguration
    ) {
        modelType = model.description.modelType
        parameters = model.parameters
        family = hardware.family
        self.quantity = quantity
        var words: [String] = []
        if parallel.pipeline > 1 { words.append("pipeline") }
        if parallel.context > 1 { words.append("context") }
        if parallel.tensor > 1 { words.append("tensor") }
        if parallel.data > 1 { words.append("data") }
        if parallel.stageRanks > 1 && !parallel.replicatesExperts {
            words.append(parallel.exchange == .gathered ? "gathered experts" : "all-to-all experts")
        }
        parts = words.isEmpty ? "one rank" : words.joined(separator: ", ")
    }

    package var description: String { "\(family), \(modelType), \(quantity.rawValue), \(parts)" }
}
