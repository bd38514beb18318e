import JSON
package import Tensors

/// Reads `config.json` and `generation_config.json` as data: nothing in them is executed or downloaded.
package enum ModelConfigurationFile {
    /// A configuration file may have this many bytes; the released models' files have a few kilobytes.
    package static let maximumBytes = 4 << 20

    /// Reads the file's top-level object.
    ///
    /// - Throws: when the file is missing, too large, too deeply nested, not strict JSON (RFC 8259, UTF-8), has a key
    ///   twice in one object, or is not an object.
    package static func read(_ path: String) throws(CheckpointError) -> ConfigurationValue {
        let file = try RegularFile(opening: path)
        return try parse(file.contents(limit: maximumBytes), file: path)
    }

    /// Checks that a file exists, may be read and is no pointer of Git LFS.
    ///
    /// - Parameter advice: What to do if there is no such file.
    package static func check(_ path: String, advice: String) throws(CheckpointError) {
        guard RegularFile.exists(path) else {
            throw CheckpointError(file: path, problem: "does not exist", advice: advice)
        }
        _ = try RegularFile(opening: path)
    }

    /// Reads the file's top-level object, or returns nil if no file has that name.
    package static func readIfPresent(_ path: String) throws(CheckpointError) -> ConfigurationValue? {
        RegularFile.exists(path) ? try read(path) : nil
    }

    /// Returns the element type in which kernels read the checkpoint's unquantized weights, from `torch_dtype` or, in
    /// newer files, `dtype`. F16 is widened to F32. A missing key and `auto` stand for `bfloat16`, the type of the
    /// released models.
    ///
    /// - Throws: also if both keys have a value and these differ, as other software may read either.
    package static func storedType(_ file: ConfigurationValue) throws(CheckpointError) -> DType {
        let names = ["float32", "bfloat16", "float16", "float", "half", "auto"]
        var types: [DType] = []
        for key in ["torch_dtype", "dtype"] where file.contains(key) && !file.isNull(key) {
            let stored = try file.string(key, oneOf: names + names.map { "torch." + $0 })
            types.append(["bfloat16", "auto"].contains(stored.split(separator: ".").last) ? .bf16 : .f32)
        }
        guard types.allSatisfy({ $0 == types[0] }) else {
            throw file.refusal(
                "dtype", "does not say what torch_dtype says", advice: "remove the one of both that is not meant")
        }
        return types.first ?? .bf16
    }

    /// Parses a text that is already in memory; `file` names it in errors.
    package static func parse(_ bytes: [UInt8], file: String) throws(CheckpointError) -> ConfigurationValue {
        try object(in: bytes, file: file, maximumBytes: maximumBytes)
    }

    static func object(
        in bytes: [UInt8], file: String, maximumBytes: Int
    ) throws(CheckpointError) -> ConfigurationValue {
        let advice = "correct the file or download it again"
        guard bytes.count <= maximumBytes else {
            throw CheckpointError(
                file: file, problem: "has \(bytes.count) bytes, more than the limit of \(maximumBytes)", advice: advice)
        }
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue(parsing: bytes, limits: .strict)
        } catch {
            throw CheckpointError(
                file: file, problem: "\(error)", advice: advice)
        }
        guard let members = value.object else {
            throw CheckpointError(
                file: file, problem: "holds \(value.summary) where an object {…} is expected", advice: advice)
        }
        return ConfigurationValue(file: file, path: "", members: members)
    }
}
