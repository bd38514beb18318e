import ArgumentParser
import Foundation
import TestSupport
import Testing
import braid

/// `Tests/Frozen/options.txt` lists every option of every subcommand, so that adding, renaming or removing one shows in
/// a review, and `Docs/options.md` the options of other engines. `BRAID_RECORD_OPTIONS=1` makes this test write both
/// anew, and fail.
@Suite struct `The command line` {
    @Test func `has the options that are written down, and no others`() throws {
        let found = try Self.options()
        let file = URL(fileURLWithPath: Golden.root + "/Tests/Frozen/options.txt")
        let page = URL(fileURLWithPath: Golden.root + "/Docs/options.md")
        if ProcessInfo.processInfo.environment["BRAID_RECORD_OPTIONS"] == "1" {
            try Data((found.joined(separator: "\n") + "\n").utf8).write(to: file)
            try Data(OptionsPage.text.utf8).write(to: page)
            Issue.record("recorded \(found.count) options anew")
            return
        }
        let written = try String(contentsOf: file, encoding: .utf8).split(separator: "\n").map(String.init)
        #expect(Set(found).subtracting(written).sorted() == [], "options that are not written down")
        #expect(Set(written).subtracting(found).sorted() == [], "options that are gone")
        #expect(found.count > 100 && Set(found).count == found.count)
        #expect(try String(contentsOf: page, encoding: .utf8) == OptionsPage.text, "Docs/options.md is not the table")
    }

    @Test(arguments: ["serve", "router"]) func `says in its help what every option is by default`(name: String) throws {
        let command = try Braid.parseAsRoot([name])
        let options = try #require(CommandOptions.command(named: [name]))
        let described = try CommandDump.root().subcommands?.first { $0.commandName == name }?.arguments ?? []
        var count = 0
        for line in EffectiveConfiguration(of: command, options, []).lines where !line.hasPrefix("#") {
            let parts = line.split(separator: "  # ")[0].split(separator: ": ", maxSplits: 1).map(String.init)
            if ["true", "false"].contains(parts[1]) { continue }
            count += 1
            let option = try #require(described.first { $0.names?.contains { $0.name == parts[0] } == true }, "\(line)")
            let words = (option.abstract ?? "").lowercased()
            let value = parts[1].trimmingCharacters(in: ["'"]).lowercased()
            let isSaid = words.contains("default") && words.contains(value)
            #expect(isSaid || option.defaultValue?.lowercased() == value, "\(line)")
        }
        #expect(count > 10)
    }

    /// Returns a line for each option: the command, all spellings of the option, its values if they are few, and its
    /// default.
    private static func options() throws -> [String] { lines(of: try CommandDump.root(), behind: []).sorted() }

    private static func lines(of command: CommandDump, behind path: [String]) -> [String] {
        let path = path + [command.commandName]
        let own = (command.arguments ?? []).map { argument in
            let names = (argument.names ?? []).map { ($0.kind == "short" ? "-" : "--") + $0.name }
            let value = argument.kind == "flag" ? [] : ["<\(argument.valueName ?? "")>"]
            let values = argument.allValues.map { ["{\($0.joined(separator: ","))}"] } ?? []
            let fallback = argument.defaultValue.map { ["= \($0)"] } ?? []
            return (path + names + value + values + fallback).joined(separator: " ")
        }
        return own + (command.subcommands ?? []).flatMap { lines(of: $0, behind: path) }
    }
}
