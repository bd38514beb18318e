import Foundation
import JSON
package import Modeling
import Parallelism
import Planning
package import Tensors

/// A tuning file stores what `braid tune` found for a processor.
package struct TuningFile: Equatable {
    /// The file's format; files of another format are not read.
    package var format = TuningFile.format
    package var processor: String
    /// The entries; a key names an instruction-set level and the sizes of a model.
    package var models: [String: Entry] = [:]

    package struct Entry: Equatable {
        /// The date of the measurement.
        package var date: String
        /// The names and values of `Tuning.settings`; absent ones have their defaults.
        package var tuning: [String: Int]

        package init(_ tuning: Tuning, date: String) {
            self.date = date
            self.tuning = Dictionary(uniqueKeysWithValues: tuning.changes.map { ($0.name, $0.value) })
        }

        fileprivate init?(_ value: JSONValue) {
            guard let date = value["date"]?.string, let settings = value["tuning"]?.object else { return nil }
            self.date = date
            tuning = [:]
            for setting in settings {
                guard let number = setting.value.wholeNumber else { return nil }
                tuning[setting.key] = number
            }
        }

        fileprivate var json: JSONValue {
            let settings = tuning.sorted { $0.key < $1.key }.map { JSONMember($0.key, .integer($0.value)) }
            return .fields(["date": .string(date), "tuning": .object(settings)])
        }

        fileprivate var numbers: Tuning {
            get throws {
                var numbers = Tuning()
                for (name, value) in tuning {
                    guard let setting = Tuning.settings.first(where: { $0.name == name }) else {
                        throw CommandError("'\(name.prefix(40))' is no setting; run braid tune again")
                    }
                    guard setting.legal.contains(value) else {
                        throw CommandError(
                            "a \(name) of \(value) is not between \(setting.legal.lowerBound) and "
                                + "\(setting.legal.upperBound); run braid tune again")
                    }
                    numbers[keyPath: setting.path] = value
                }
                return numbers
            }
        }
    }

    package static let format = 1
    /// The maximum number of bytes of a file that is read.
    private static let maxBytes = 1 << 20

    package init(processor: String) { self.processor = processor }

    /// Returns the default path of this processor's file, `tune/<processor>.json` in the user's cache; `nil` for a user
    /// without a cache directory.
    package static func standardPath(_ environment: [String: String] = ProcessInfo.processInfo.environment) -> String? {
        cachePath("tune", environment)
    }

    /// Returns the path of this processor's file in a folder of the user's cache; `nil` for a user without one.
    static func cachePath(_ folder: String, _ environment: [String: String]) -> String? {
        let absolute = { (name: String) in environment[name].flatMap { $0.hasPrefix("/") ? $0 : nil } }
        guard let caches = absolute("XDG_CACHE_HOME") ?? absolute("HOME").map({ $0 + "/.cache" }) else { return nil }
        return caches + "/braid/\(folder)/" + fileName(of: Processor.name)
    }

    /// Returns a file name for a processor that consists of letters, digits and hyphens.
    package static func fileName(of processor: String) -> String {
        let words = processor.lowercased().split { !($0.isASCII && ($0.isLetter || $0.isNumber)) }
        return words.joined(separator: "-") + ".json"
    }

    /// - Parameters:
    ///   - option: The command-line option that named the file.
    ///   - processor: The processor that the file must be for.
    /// - Throws: `CommandError` if it is not a tuning file, or is for another processor or format.
    package init(path: String, option: String = "--tuning", for processor: String = Processor.name) throws {
        let bytes = try DataFile(path: path, option: option, limit: Self.maxBytes).bytes
        guard let value = try? JSONValue(parsing: bytes, limits: .strict), let file = TuningFile(value) else {
            throw CommandError("\(path) is not a file that braid tune wrote")
        }
        guard file.format == Self.format else {
            throw CommandError(
                "\(path) is of format \(file.format), where \(Self.format) is read; run braid tune again")
        }
        guard file.processor == processor else {
            throw CommandError("\(path) was measured on \(file.processor.prefix(80)), and this is \(processor)")
        }
        self = file
    }

    /// Returns the block sizes found for a model; `nil` if it was not tuned for.
    ///
    /// - Throws: `CommandError` if a setting is unknown or out of range.
    package func tuning(for model: String) throws -> Tuning? { try models[model]?.numbers }

    /// Stores the findings for a model, and keeps its entry's values of settings that were not measured.
    package mutating func keep(_ found: Tuning, measured: [String], for model: String, date: String) {
        // Invalid settings are dropped: they would prevent the others from being read.
        let old = (models[model]?.tuning ?? [:]).filter { name, value in
            !measured.contains(name)
                && Tuning.settings.contains { $0.name == name && $0.legal.contains(value) }
        }
        models[model] = Entry(found, date: date)
        models[model]?.tuning.merge(old) { _, old in old }
    }

    package func write(to path: String) throws {
        var writer = JSONWriter(.indented)
        writer.value(json)
        let url = URL(fileURLWithPath: path)
        try FileManager.default.createDirectory(
            at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(writer.takeBytes() + "\n".utf8).write(to: url, options: .atomic)
    }

    /// Reads a tuning file; fails if the value is none.
    private init?(_ value: JSONValue) {
        guard let format = value["format"]?.wholeNumber, let processor = value["processor"]?.string,
            let entries = value["models"]?.object
        else { return nil }
        self.format = format
        self.processor = processor
        for entry in entries {
            guard let numbers = Entry(entry.value) else { return nil }
            models[entry.key] = numbers
        }
    }

    private var json: JSONValue {
        let entries = models.sorted { $0.key < $1.key }.map { JSONMember($0.key, $0.value.json) }
        return .fields([
            "format": .integer(format), "models": .object(entries), "processor": .string(processor),
        ])
    }
}

extension TuningFile {
    /// Returns the key of a model in the file: its sizes, which do not depend on its weights.
    package static func key(_ model: ModelDescription, _ level: Kernels.Level) -> String {
        var parts = ["hidden \(model.hiddenSize)"]
        if let attention = model.attention {
            parts.append("heads \(attention.heads) × (\(attention.latentWidth) + \(attention.ropeWidth))")
        }
        parts += ["values \(model.parallelShape.valueWidth)", "experts \(model.parallelShape.expertWidth)"]
        if let selection = model.selection { parts.append("indexer \(selection.heads) × \(selection.width)") }
        return "\(level.rawValue): " + parts.joined(separator: ", ")
    }
}

/// A chosen tuning holds the block sizes a command runs with, and where they come from.
package struct ChosenTuning {
    package private(set) var tuning = Tuning()
    /// The origin of the sizes, in words.
    private var source: String
    /// A problem with the default file, which was not requested by name; `nil` without one.
    package private(set) var warning: String?

    /// - Parameters:
    ///   - option: The option of the command line: a file, `off`, or `nil` for this processor's file if there is one.
    ///   - standard: The path of this processor's file.
    /// - Throws: `CommandError` if a file that was requested by name cannot be used.
    package init(
        _ option: String?, _ model: ModelDescription, _ level: Kernels.Level,
        standard: String? = TuningFile.standardPath()
    ) throws {
        source = option == "off" ? "off" : "none; braid tune measures it"
        guard option != "off", let path = option ?? standard else { return }
        if option == nil, !FileManager.default.fileExists(atPath: path) { return }
        do {
            if let found = try TuningFile(path: path).tuning(for: TuningFile.key(model, level)) {
                tuning = found
                source = path
            } else if option != nil {
                throw CommandError(
                    "\(path) has nothing for '\(TuningFile.key(model, level))'; braid tune --output adds it")
            } else {
                source = "none for this model; braid tune measures it"
            }
        } catch {
            if option != nil { throw CommandError("--tuning: \(error)") }
            warning = "ignoring what braid tune wrote to \(path): \(error)"
            source = "none: \(error)"
        }
    }

    /// The chosen sizes and their origin, in words.
    package var summary: String {
        (tuning.changes.map { "\($0.name) \($0.value)" } + [source]).joined(separator: ", ")
    }
}
