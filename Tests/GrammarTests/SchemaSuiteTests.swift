import Foundation
import Grammar
import JSON
import Testing
import Tokenization

/// Compares the JSON Schema Test Suite with the committed table of what is supported, refused and different.
///
/// An instance counts as accepted if its canonical text is accepted with the members of its objects in some order,
/// because a grammar fixes an order.
@Suite struct SchemaSuiteTests {
    @Test func `every group of the suite is supported or refused as the table says`() throws {
        let found = try rows()
        let file = Fixtures.folder.appendingPathComponent("schema-suite.tsv")
        if ProcessInfo.processInfo.environment["BRAID_WRITE_FIXTURES"] != nil {
            try (Self.header + found.joined(separator: "\n") + "\n").write(to: file, atomically: true, encoding: .utf8)
        }
        let expected = try String(contentsOf: file, encoding: .utf8).split(separator: "\n").map(String.init)
            .filter { !$0.hasPrefix("#") }
        let (missing, surplus) = (Set(expected).subtracting(found).sorted(), Set(found).subtracting(expected).sorted())
        #expect(missing == [], "in the table only")
        #expect(surplus == [], "found only")
        #expect(found.count == 390)
    }

    private static let header = """
        # The JSON Schema Test Suite, draft 2020-12: file, group of tests, verdict, details.
        # supported: all valid instances are accepted and all invalid ones rejected, in canonical spelling.
        # refused: the schema is refused, with this message.
        # differs: these instances are not judged as the suite does; Docs/structured-output.md says why.
        # Written with BRAID_WRITE_FIXTURES=1 by SchemaSuiteTests.

        """

    private func rows() throws -> [String] {
        let folder = try Fixtures.fetched("json-schema-suite", by: "Scripts/fetch-schema-suite")
        var rows: [String] = []
        for name in try FileManager.default.subpathsOfDirectory(atPath: folder.path).sorted()
        where name.hasSuffix(".json") && (!name.hasPrefix("optional/") || name.hasPrefix("optional/format/")) {
            let groups = try #require(
                try JSONValue(parsing: Data(contentsOf: folder.appendingPathComponent(name))).array)
            for group in groups { rows.append(try row(name, group)) }
        }
        return rows
    }

    private func row(_ file: String, _ group: JSONValue) throws -> String {
        let title = try #require(group["description"]?.string)
        let text = try #require(group["schema"]).pythonText
        var (verdict, details) = ("supported", "")
        do {
            let grammar = try schema(text)
            var different: [String] = []
            for test in try #require(group["tests"]?.array) {
                let isValid = try #require(test["valid"]?.bool as Bool?)
                let isAccepted = try variants(#require(test["data"])).contains { try grammar.accepts($0.pythonText) }
                guard isAccepted != isValid else { continue }
                different.append((isValid ? "rejected: " : "accepted: ") + (test["description"]?.string ?? ""))
            }
            if !different.isEmpty { (verdict, details) = ("differs", different.joined(separator: "; ")) }
        } catch let error as GrammarError {
            (verdict, details) = ("refused", error.description)
        }
        return [file, title, verdict, details].joined(separator: "\t")
    }

    /// Lists values with the members of its objects in other orders, up to some number of them.
    private func variants(_ value: JSONValue) -> [JSONValue] {
        switch value {
        case .array(let elements):
            return elements.reduce([[]]) { lists, element in
                combine(lists, variants(element)) { $0 + [$1] }
            }.map { .array($0) }
        case .object(let members):
            let lists = members.reduce([[]]) { lists, member in
                combine(lists, variants(member.value)) { $0 + [JSONMember(member.key, $1)] }
            }
            return Array(lists.flatMap { orders($0) }.map { .object($0) }.prefix(2000))
        default: return [value]
        }
    }

    private func combine<A, B, C>(_ left: [A], _ right: [B], _ join: (A, B) -> C) -> [C] {
        Array(left.flatMap { a in right.map { join(a, $0) } }.prefix(500))
    }

    private func orders(_ members: [JSONMember]) -> [[JSONMember]] {
        guard members.count > 1, members.count < 6 else { return [members] }
        return members.indices.flatMap { index in
            var rest = members
            let first = rest.remove(at: index)
            return orders(rest).map { [first] + $0 }
        }
    }
}
