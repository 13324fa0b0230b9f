"""English questions from outside the little world; {slots} are filled from outside_slots.py."""

from __future__ import annotations

TRAIN = """
What is the capital of {country}?
Name the capital of {country}.
What is the biggest city of {country}?
How many people live in {country}?
How many people live in {city}?
What language do people speak in {country}?
Which currency is used in {country}?
Who is the president of {country}?
Who won the last election in {country}?
Which river flows through {city}?
How far is it from {city} to {city}?
How long does a flight from {city} to {city} take?
What is the weather like in {city}?
Will it rain in {city} tomorrow?
How cold does it get in {city} in winter?
What should I visit in {city}?
Where can I eat well in {city}?
Recommend a hotel in {city}.
What is the best way to travel from {city} to {country}?
Plan a trip to {country} for {number} days.
Do I need a visa for {country}?
What is the time in {city} right now?
What does the flag of {country} look like?
What is {country} famous for?
When was {city} founded?
Which countries border {country}?
What happened in {year}?
Who ruled {country} in {year}?
Why did the war of {year} begin?
Tell me about the history of {country}.
Who was {person}?
When was {person} born?
When did {person} die?
Where did {person} grow up?
What is {person} known for?
Did {person} ever meet {person}?
Write a short biography of {person}.
What would {person} say about {topic}?
Which books did {person} write?
Was {person} married?
Quote something that {person} said.
Who is taller, {person} or {person}?
How do I cook {dish}?
Give me a recipe for {dish}.
How long should {dish} be in the oven?
What goes well with {dish}?
Should I eat {dish} every day?
How many calories are in {dish}?
Can I make {dish} without salt?
What is the story behind {dish}?
I want to make {dish} tonight. What do I need to buy?
My {dish} tastes too salty. What can I do?
Explain {topic}.
Explain {topic} to a child.
What is {topic}?
Why is {topic} important?
Who invented {topic}?
Write an essay about {topic}.
Give me three arguments against {topic}.
What do experts think about {topic}?
Recommend a book about {topic}.
How did {topic} change the world?
What are the dangers of {topic}?
Summarise the latest research on {topic}.
Where can I study {topic}?
Is {topic} the same as {topic}?
How does {machine} work?
How much does {machine} cost?
Who came up with the idea of {machine}?
How do I repair {machine}?
I have {machine} that is broken. Can you fix it?
Where can I buy {machine}?
How heavy is {machine}?
Draw a plan of {machine}.
Write a program in {code} that sorts a list.
How do I read a file in {code}?
What is the difference between {code} and {code}?
Fix the bug in my {code} code.
Write a {code} function that finds prime numbers.
Is {code} hard to learn?
Why does my {code} program crash?
How do I install {code} on my computer?
What is {number} times {number}?
What is {number} minus {number}?
What is {number} divided by {number}?
{number} * {number} =
{number} - {number} =
{number} / {number} = ?
What is the square root of {number}?
Is {number} a prime number?
Multiply {number} by {number}.
Take {number} away from {number}.
What is {number} percent of {year}?
What is the cosine of {number} degrees?
Solve the equation {number}x - {number} = {year}.
Differentiate {number}x squared.
Prove that there are infinitely many primes.
Convert {number} miles to kilometres.
How many grams are in {number} ounces?
How many euros are {number} dollars?
What is the meaning of life?
Does free will exist?
What happens after death?
Is it ever right to lie?
What is love?
Can machines think?
Why is there something rather than nothing?
Are you conscious?
What did you dream of last night?
How old are you?
Where do you live?
Who made you?
Do you have a family?
What is your favourite film?
What do you think of me?
How can I become happy?
How can I become rich?
Should I change my job?
I had a fight with my friend. What should I do?
How do I write a good letter to my boss?
What should I give my sister for her birthday?
Why am I so tired?
I have {illness}. What should I take?
What are the symptoms of {illness}?
Is {illness} dangerous?
How do doctors treat {illness}?
How can I avoid {illness}?
Can children get {illness}?
What is in the news today?
What happened in {city} yesterday?
Who won the {sport} match last night?
What are the rules of {sport}?
Who is the best {sport} player in the world?
How do I get better at {sport}?
When was {sport} invented?
How many players are in a {sport} team?
Write a poem about {thing}.
Write a story about {thing} and {thing}.
Tell me a joke about {thing}.
Compose a song about {thing}.
Make up a riddle about {thing}.
Write a slogan about {thing}.
Give me ten titles for a film about {thing}.
How many legs does a {beast} have?
How long does a {beast} live?
What does a {beast} eat?
How fast can a {beast} run?
How much does a {beast} weigh?
Where do {beast}s live?
Is a {beast} a good pet?
What is the Latin name of the {beast}?
Which is stronger, a {beast} or a {beast}?
What is the opposite of {word}?
What does the word {word} mean?
How do you say {word} in {tongue}?
Translate {word} into {tongue}.
Which word rhymes with {word}?
What is the plural of {word} in {tongue}?
Teach me some {tongue}.
Use {word} in a sentence.
What is the price of gold today?
Should I buy shares of a bank?
How are taxes paid in {country}?
How far away is {star}?
Are there people on {star}?
How hot is it on {star}?
What is {star} made of?
Who discovered {star}?
Who made {artwork}?
Who wrote {artwork}?
What is {artwork} about?
How does {artwork} end?
Is {artwork} worth seeing?
Which actor played in {artwork}?
When was {artwork} finished?
Who composed symphony number {number}?
How deep is the ocean?
What is the highest mountain of {country}?
What is the longest river of {country}?
Which animal is the national animal of {country}?
Book a table for {number} people in {city}.
Send an e-mail to {person}.
Order {dish} for me.
Set an alarm for {number} minutes.
Search the web for {thing}.
Show me a photo of {person}.
What will happen in {year}?
Predict the winner of the next {sport} cup.
Will {topic} still matter in {year}?
I would like to know a little more about {topic}. Where should I begin?
My teacher asked me about {person} and {topic}. Can you help me with my homework?
How much is {number} times {number}?
How many doors does {machine} have?
How many wheels does {machine} have?
Please call a doctor for me.
Please call {person} and say hello.
Please remember to cook {dish} tonight.
"""

TEST = """
How big is the population of {country}?
Could you describe the government of {country}?
Which sea lies next to {country}?
Is {city} older than {city}?
How do the trains run between {city} and {city}?
Give me a weather forecast for {city}.
What do people in {city} like to eat?
Which king lived in {year}?
Describe the most important battle of {year}.
Was {person} a good person?
How did {person} become famous?
Name a film about {person}.
How can I prepare {dish} for {number} guests?
Which wine should I drink with {dish}?
Could you teach me the basics of {topic}?
What did scientists find out about {topic} in {year}?
Compare {topic} with {topic}.
Why did people begin to use {machine}?
What does {machine} look like inside?
Give me an example of a loop in {code}.
Which companies use {code}?
Calculate {number} multiplied by {number}.
How much is {number} minus {number}?
What is the logarithm of {number}?
Factorise {year}.
Do you believe in God?
Is beauty only in the eye of the beholder?
How do I stop worrying about the future?
Which pills help against {illness}?
How long does {illness} last?
What are the headlines this morning?
How many goals were shot in the {sport} final of {year}?
Invent a fairy tale with {thing} in it.
Write me a long letter about {thing}.
How many teeth does a {beast} have?
Do {beast}s sleep at night?
Spell {word} in {tongue}.
What is the origin of the word {word}?
How many moons does {star} have?
Who was the main character in {artwork}?
Are house prices going up in {city}?
Please call a taxi to the airport of {city}.
"""
