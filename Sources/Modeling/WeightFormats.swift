package import Checkpoints
package import Tensors

/// A weight format tells how a matrix is stored: the type of its elements, and which of them share a scale.
package struct WeightFormat: Sendable, Hashable {
    package var dtype: DType
    package var scaling: Scaling

    /// - Parameter scaling: `nil` takes that of most released checkpoints.
    package init(_ dtype: DType, _ scaling: Scaling? = nil) {
        self.dtype = dtype
        self.scaling = scaling ?? dtype.scalings[0]
    }

    /// The bytes of an element with its part of a scale. Scales of whole rows are left out: they are four bytes for
    /// thousands of elements.
    package var bytesPerElement: Double {
        let element = Double(dtype.bits) / 8
        guard case .blocks(let rows, let columns) = scaling else { return element }
        // E8M0 scales are bytes, others are F32.
        return element + (dtype == .fp4 ? 1 : 4) / Double(rows * columns)
    }
}

/// The formats in which a checkpoint stores its weights, as `config.json` says.
package struct WeightFormats: Sendable, Equatable {
    /// The format of weights that are never quantized, such as vectors, the vocabulary and routers.
    package var plain: WeightFormat
    /// The format of the matrices that are neither plain nor of routed experts.
    package var products: WeightFormat
    /// The format of the matrices of routed experts.
    package var experts: WeightFormat

    /// Takes one format for all weights.
    package init(_ dtype: DType) {
        plain = WeightFormat(dtype)
        (products, experts) = (plain, plain)
    }

    /// Reads a checked `config.json`.
    ///
    /// - Throws: `CheckpointError` naming the key, what was found and what is legal.
    package init(_ file: ConfigurationValue) throws(CheckpointError) {
        self.init(try ModelConfigurationFile.storedType(file))
        guard let quantization = try file.objectIfPresent("quantization_config") else { return }
        let dtype: DType = try QuantizationConfiguration.validate(quantization) == .int8 ? .int8 : .fp8
        let hasBlocks = quantization.contains("weight_block_size")
        products = WeightFormat(dtype, hasBlocks ? .blocks(rows: 128, columns: 128) : .perRow)
        experts = products
    }

    /// Returns the format of some weights of a layer.
    package func format(of weights: LayerDescription.Weights) -> WeightFormat {
        if case .expert = weights.split { return experts }
        return weights.isQuantized ? products : plain
    }

    /// Returns the bytes of some weights of a layer, with their scales.
    package func bytes(of weights: LayerDescription.Weights) -> Int {
        Int((Double(weights.elements) * format(of: weights).bytesPerElement).rounded())
    }
}

extension WeightFormats: CustomStringConvertible {
    /// The element types, such as `fp8, fp4 experts, bf16 others`; one for all where they are alike.
    package var description: String {
        let names = ["\(products.dtype)"] + (experts == products ? [] : ["\(experts.dtype) experts"])
        return (names + (plain == products ? [] : ["\(plain.dtype) others"])).joined(separator: ", ")
    }
}
