import Foundation

/// The files of weights in a directory, as the file system describes them.
struct WeightFiles {
    struct File {
        let name: String
        let bytes: Int
        /// The time at which it was last written, in seconds.
        let written: Double
    }

    /// The files, sorted by name.
    let files: [File]

    /// Lists the files of a checkpoint's directory.
    ///
    /// - Throws: if the directory or a file cannot be read.
    init(in directory: String) throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: directory)
        files = try names.filter { $0.hasSuffix(".safetensors") }.sorted().map { name in
            // Files of download caches are symbolic links.
            let path = URL(fileURLWithPath: directory + "/" + name).resolvingSymlinksInPath().path
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            let written = (attributes[.modificationDate] as? Date)?.timeIntervalSince1970
            return File(name: name, bytes: attributes[.size] as? Int ?? 0, written: written ?? 0)
        }
    }

    var bytes: Int { files.reduce(0) { $0 + $1.bytes } }

    /// A text that changes when a file is written.
    var writeTimes: String { files.map { "\($0.name) \($0.written)" }.joined(separator: ", ") }
}
