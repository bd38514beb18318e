import JSON

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

    /// Reads the file's top-level object, or returns nil if no file has that name.
    package static func readIfPresent(_ path: String) throws(CheckpointError) -> ConfigurationValue? {
        RegularFile.exists(path) ? try read(path) : nil
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
