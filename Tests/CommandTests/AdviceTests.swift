import Foundation
import TestSupport
import Testing
import braid

/// Texts of the program that name options: errors, warnings and help.
@Suite struct `Advice` {
    /// Options of other programs that lines for a shell contain.
    private static let ofOtherPrograms: [String: Set<String>] = [
        "mpirun": ["--allow-run-as-root", "--bind-to", "--host", "--oversubscribe"],
        "attack": ["--case", "--kind", "--program"],
        "ArgumentParser": ["--experimental-dump-help"],
    ]

    @Test func `names only options that exist`() throws {
        let known = Self.ofOtherPrograms.values.reduce(try CommandDump.root().optionNames) { $0.union($1) }
        var count = 0
        for (place, name) in try Self.namesInSources() {
            count += 1
            #expect(known.contains(name), "\(place) names \(name), which is no option of any command")
        }
        #expect(count > 300)
    }

    @Test(arguments: CompatibilityTable.Command.allCases)
    func `about options of other engines names only options that exist`(command: CompatibilityTable.Command) throws {
        let known = try CommandDump.root().optionNames
        var count = 0
        for row in CompatibilityTable(for: command.rawValue.split(separator: " ").map(String.init)).rows {
            let text =
                switch row.meaning {
                case .noEffect: ""
                case .always(let reason): reason
                case .same(let words, _): words
                case .refused(_, let advice): advice
                }
            for name in Self.names(in: text) {
                count += 1
                #expect(known.contains(name), "\(row.names[0]): \(text)")
            }
        }
        #expect(count > 0)
    }

    /// Returns the names of options in a text.
    private static func names(in text: String) -> [String] {
        text.matches(of: /(?<before>^|[^A-Za-z0-9-])(?<name>--[a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?![A-Za-z0-9-])/)
            .map { String($0.output.name) }
    }

    /// Returns all names of options in the code of the sources, with their places. The table of other engines' options
    /// contains theirs.
    private static func namesInSources() throws -> [(place: String, name: String)] {
        let folder = Golden.root + "/Sources"
        let files = try FileManager.default.subpathsOfDirectory(atPath: folder).filter { path in
            path.hasSuffix(".swift") && !path.contains("/CompatibilityTable+")
        }
        return try files.sorted().flatMap { path -> [(place: String, name: String)] in
            let text = try String(contentsOfFile: folder + "/" + path, encoding: .utf8)
            return text.split(separator: "\n", omittingEmptySubsequences: false).enumerated().flatMap { number, line in
                line.trimmingCharacters(in: .whitespaces).hasPrefix("//")
                    ? [] : names(in: String(line)).map { ("\(path):\(number + 1)", $0) }
            }
        }
    }
}
