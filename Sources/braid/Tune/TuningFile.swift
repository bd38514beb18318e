import Foundation
import JSON
package import Modeling
import Parallelism
import Planning
package import Tensors

/// What `braid tune` found for a processor, kept for whoever runs a model there.
package struct TuningFile: Equatable {
    /// Of the file; another one is not read.
    package var format = TuningFile.format
    package var processor: String
    /// By instruction-set level and sizes of the model.
    package var models: [String: Entry] = [:]

    package struct Entry: Equatable {
        /// When it was measured.
        package var date: String
        /// Names and numbers of `Tuning.settings`; what is absent is as by default.
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
    /// Of a file that is read.
    private static let maxBytes = 1 << 20

    package init(processor: String) { self.processor = processor }

    /// Where this processor's is by default, `tune/<processor>.json` in the user's cache; `nil` for a user without one.
    package static func standardPath(_ environment: [String: String] = ProcessInfo.processInfo.environment) -> String? {
        let absolute = { (name: String) in environment[name].flatMap { $0.hasPrefix("/") ? $0 : nil } }
        guard let caches = absolute("XDG_CACHE_HOME") ?? absolute("HOME").map({ $0 + "/.cache" }) else { return nil }
        return caches + "/braid/tune/" + fileName(of: Processor.name)
    }

    /// Letters, digits and hyphens alone.
    package static func fileName(of processor: String) -> String {
        let words = processor.lowercased().split { !($0.isASCII && ($0.isLetter || $0.isNumber)) }
        return words.joined(separator: "-") + ".json"
    }

    /// - Parameters:
    ///   - option: what the user gave it as.
    ///   - processor: whose it has to be.
    /// - Throws: `CommandError` where it is no such file.
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

    /// The sizes found for a model, or `nil` where it was not tuned for.
    ///
    /// - Throws: `CommandError` where they cannot be.
    package func tuning(for model: String) throws -> Tuning? { try models[model]?.numbers }

    /// Keeps what was found for a model, and what its entry says of settings that were not measured.
    package mutating func keep(_ found: Tuning, measured: [String], for model: String, date: String) {
        // What cannot be is forgotten: it would keep the rest from being read.
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

    /// `nil` for what is no such file.
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
    /// What a model is called there: its sizes, whatever its weights are.
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

/// The sizes of blocks a command runs with, and where they come from.
package struct ChosenTuning {
    package private(set) var tuning = Tuning()
    /// For people.
    private var source: String
    /// Something is wrong with the file, which nobody asked for by name.
    package private(set) var warning: String?

    /// - Parameters:
    ///   - option: of the command line: a file, `off`, or nothing for this processor's file if there is one.
    ///   - standard: that file.
    /// - Throws: `CommandError` when a file that was asked for cannot be used.
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

    /// What was chosen, and where.
    package var summary: String {
        (tuning.changes.map { "\($0.name) \($0.value)" } + [source]).joined(separator: ", ")
    }
}
