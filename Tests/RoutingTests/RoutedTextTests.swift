import JSON
import Routing
import Testing

@Suite struct `The text by which a request is routed` {
    private func text(_ body: String) throws -> RoutedText { RoutedText(of: try JSONValue(parsing: body)) }

    private static let long = String(repeating: "All work and no play. ", count: 60)

    @Test func `a conversation that goes on begins like it did before`() throws {
        let first = #"{"role":"user","content":"\#(Self.long)"}"#
        let more = #"{"role":"assistant","content":"Yes."},{"role":"user","content":"\#(Self.long)"}"#
        let short = try text(#"{"messages":[\#(first)]}"#)
        let longer = try text(#"{"messages":[\#(first),\#(more)]}"#)
        #expect(short.blocks.count >= 5 && longer.blocks.count > short.blocks.count)
        #expect(Array(longer.blocks.prefix(short.blocks.count)) == short.blocks)
    }

    @Test(arguments: [
        #"{"cache_salt":"b","messages":[M]}"#, #"{"tools":[{"type":"function"}],"messages":[M]}"#,
        #"{"system":"Be brief.","messages":[M]}"#, #"{"instructions":"Be brief.","messages":[M]}"#,
        #"{"messages":[{"role":"system","content":"Be brief."},M]}"#, #"{"prompt":"M"}"#,
    ])
    func `what comes before the messages, or is no message, makes another text from the first block on`(
        _ body: String
    ) throws {
        let message = #"{"role":"user","content":"\#(Self.long)"}"#
        let plain = try text(#"{"messages":[\#(message)]}"#)
        let filled = body.contains(#""M""#) ? body.replacing("M", with: Self.long) : body.replacing("M", with: message)
        let other = try text(filled)
        #expect(other.blocks.count >= 5 && Set(other.blocks).isDisjoint(with: plain.blocks))
    }

    @Test(arguments: ["text", "prompt", "input"])
    func `a prompt is text on every route`(_ member: String) throws {
        let short = try text(#"{"\#(member)":"\#(Self.long)"}"#)
        let longer = try text(#"{"\#(member)":"\#(Self.long)\#(Self.long)","max_tokens":5,"stream":true}"#)
        #expect(short.blocks.count == 5)
        #expect(Array(longer.blocks.prefix(5)) == short.blocks)
    }

    @Test func `token ids take four bytes each, and a longer list begins like a shorter one`() throws {
        let ids = (0..<300).map(String.init)
        let short = try text(#"{"input_ids":[\#(ids.prefix(200).joined(separator: ","))]}"#)
        let longer = try text(#"{"input_ids":[\#(ids.joined(separator: ","))]}"#)
        #expect(short.byteCount == 9 + 800 && short.blocks.count == 3)
        #expect(longer.blocks.count == 4 && Array(longer.blocks.prefix(3)) == short.blocks)
    }

    @Test func `sampling and names do not matter`() throws {
        let one = try text(#"{"prompt":"\#(Self.long)","temperature":0,"model":"a"}"#)
        #expect(try text(#"{"seed":7,"prompt":"\#(Self.long)","user":"x"}"#) == one)
    }

    @Test(arguments: [
        "null", "7", "[]", #""x""#, "{}", #"{"messages":7}"#, #"{"messages":[[[[]]]]}"#, #"{"prompt":{"a":[1.5e300]}}"#,
        #"{"input_ids":[-1,1e3,99999999999999999999]}"#,
    ])
    func `any JSON has a text`(_ body: String) throws {
        #expect(try text(body).blocks.isEmpty)
    }
}
