/// Maps one safetensors file into memory, after checking it completely.
///
/// Opening reads only the header. It reports every kind of damage, so that a later lookup fails only for a name that
/// does not exist. Weights may be any bytes.
///
/// If another program shortens the file while it is open, reading a lost page ends the process (SIGBUS), as with every
/// mapped file. Replace models by renaming, not by writing in place.
package final class SafeTensorsFile: Sendable {
    /// The path that was given to `init`.
    package let path: String
    /// The `__metadata__` strings; it is empty if there are none.
    package let metadata: [String: String]
    let mapping: MappedFile
    private let header: SafeTensorsHeader
    /// The offset of the tensors' data in the file.
    private let dataStart: Int

    /// Maps and checks a file.
    ///
    /// - Throws: for everything the format forbids; see `SafeTensorsHeader`.
    package init(path: String) throws(CheckpointError) {
        func refusal(_ problem: String) -> CheckpointError {
            CheckpointError(file: path, problem: problem, advice: CheckpointError.damagedFile)
        }
        let file = try RegularFile(opening: path)
        guard file.size >= 8 else {
            throw refusal("has \(file.size) bytes, fewer than the 8 of a header length")
        }
        let mapping = try file.mapped()
        let declared = unsafe UInt64(littleEndian: mapping.bytes.loadUnaligned(as: UInt64.self))
        guard declared > 0 else { throw refusal("the header length is 0") }
        guard declared <= UInt64(SafeTensorsHeader.maximumBytes) else {
            throw refusal("the header length \(declared) is more than the limit of \(SafeTensorsHeader.maximumBytes)")
        }
        let dataStart = 8 + Int(declared)
        guard dataStart <= file.size else {
            throw refusal("the header length \(declared) reaches beyond the file's \(file.size) bytes")
        }
        // A copy, so that a file changed meanwhile cannot change the text between its check and its use.
        let text = unsafe [UInt8](mapping.bytes[8..<dataStart])
        header = try SafeTensorsHeader(text, dataStart: dataStart, dataBytes: file.size - dataStart, file: path)
        metadata = header.metadata
        self.path = path
        self.mapping = mapping
        self.dataStart = dataStart
    }

    /// The number of tensors in the file.
    package var tensorCount: Int { header.entries.count }

    /// All tensors in the order of the header.
    package var tensors: some Sequence<StoredTensor> { header.entries.lazy.map(self.tensor(at:)) }

    /// Returns the tensor with this name, or nil.
    package subscript(_ name: String) -> StoredTensor? {
        header.places[name].map { tensor(at: header.entries[$0]) }
    }

    private func tensor(at entry: SafeTensorsHeader.Entry) -> StoredTensor {
        StoredTensor(
            name: entry.name, storedName: entry.name, type: entry.type, shape: entry.shape, file: self,
            range: entry.range.lowerBound + dataStart..<entry.range.upperBound + dataStart)
    }
}
