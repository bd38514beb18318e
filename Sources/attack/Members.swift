import Inference

/// Valid requests in which one to three members have hostile values; every member that a route knows is tried.
struct Members: AttackKind {
    static let name = "members"

    let port: Int
    let source: RequestSource

    func run(_ random: inout SeededGenerator) throws {
        let route = random.pick(source.routes)
        var members = route.base
        for _ in 0...random.below(random.below(3) + 1) {
            if let (name, names) = route.inner, random.below(2) == 0 {
                members.removeAll { $0.name == name }
                var inner = name == "sampling_params" ? [(name: "max_new_tokens", value: "2")] : []
                let chosen = random.pick(names)
                inner.removeAll { $0.name == chosen }
                inner.append((chosen, Mutation.value(&random)))
                members.append((name, route.body(inner)))
                if name == "stream_options" { members.append(("stream", "true")) }
            } else {
                let name = random.pick(route.names)
                members.removeAll { $0.name == name }
                members.append((name, Mutation.value(&random)))
            }
        }
        try HTTPExchange.check(port: port, route.path, Array(route.body(members).utf8))
    }
}
