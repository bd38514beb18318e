/// One safetensors file, mapped into memory and checked from end to end.
///
/// Opening reads the header only. What is said about damaged files is complete at that point: a lookup afterwards fails
/// for a name that is not there and for nothing else. Weights themselves are any bytes; see
/// `StoredTensor.firstNonFiniteIndex` for the check that reads them.
///
/// If another program shortens the file while it is open, reading a lost page ends the process (SIGBUS), as with every
/// mapped file. Replace models by renaming, not by writing in place. `load` notices the loss without touching the page.
package final class SafeTensorsFile: Sendable {
    /// As it was given to `init`.
    package let path: String
    /// The `__metadata__` strings; empty if there are none.
    package let metadata: [String: String]
    let mapping: MappedFile
    private let header: SafeTensorsHeader
    /// Where the tensors' data begins in the file.
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

    /// How many tensors the file holds.
    package var tensorCount: Int { header.entries.count }

    /// All tensors in the order of the header.
    package var tensors: some Sequence<StoredTensor> { header.entries.lazy.map(self.tensor(at:)) }

    /// The tensor with this name, or nil.
    package subscript(_ name: String) -> StoredTensor? {
        header.places[name].map { tensor(at: header.entries[$0]) }
    }

    private func tensor(at entry: SafeTensorsHeader.Entry) -> StoredTensor {
        StoredTensor(
            name: entry.name, type: entry.type, shape: entry.shape, file: self,
            range: entry.range.lowerBound + dataStart..<entry.range.upperBound + dataStart)
    }
}

// MARK: - Reading ahead

extension SafeTensorsFile {
    /// The size of the file, header included.
    package var byteCount: Int { mapping.count }

    /// Tells the kernel that the file will be read from front to back. A hint: it changes speed, never results.
    package func adviseSequential() { mapping.advise(.sequential, 0..<mapping.count) }

    /// Tells the kernel to start reading a range of the file, or all of it, and returns at once. A hint.
    package func adviseWillNeed(_ range: Range<Int>? = nil) { mapping.advise(.willNeed, range ?? 0..<mapping.count) }

    /// Brings a range of the file into memory and waits for it (before Linux 5.14 and on other systems: starts it).
    ///
    /// - Throws: when the file has lost these bytes since it was opened, or its disk fails.
    package func load(_ range: Range<Int>) throws(CheckpointError) { try mapping.load(range) }

    /// How much of the file is in memory now, to whole pages; nil where the system does not tell. Systems tell it only
    /// to those who could write the file, and report to others that all of it is there.
    package var residentBytes: Int? { mapping.residentBytes }
}
