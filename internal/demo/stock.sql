DROP TABLE IF EXISTS users;
DROP TABLE IF EXISTS products;
DROP TABLE IF EXISTS reviews;
DROP TABLE IF EXISTS orders;

CREATE TABLE users (
	id       INTEGER PRIMARY KEY,
	username TEXT NOT NULL UNIQUE,
	name     TEXT NOT NULL,
	email    TEXT NOT NULL,
	address  TEXT NOT NULL,
	role     TEXT NOT NULL,
	password TEXT NOT NULL,
	balance  INTEGER NOT NULL,
	keep     INTEGER NOT NULL
);

CREATE TABLE products (
	slug   TEXT PRIMARY KEY,
	name   TEXT NOT NULL,
	blurb  TEXT NOT NULL,
	story  TEXT NOT NULL,
	price  INTEGER NOT NULL,
	stock  INTEGER NOT NULL,
	pic    TEXT NOT NULL
);

CREATE TABLE reviews (
	id     INTEGER PRIMARY KEY AUTOINCREMENT,
	slug   TEXT NOT NULL,
	author TEXT NOT NULL,
	text   TEXT NOT NULL,
	keep   INTEGER NOT NULL
);

CREATE TABLE orders (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	username TEXT NOT NULL,
	slug     TEXT NOT NULL,
	price    INTEGER NOT NULL,
	address  TEXT NOT NULL,
	placed   TEXT NOT NULL,
	keep     INTEGER NOT NULL
);

INSERT INTO products VALUES
	('obriens-mug', 'O''Brien''s mug', 'Stoneware, holds a proper 400 ml.', 'Nora O''Brien throws every mug by hand in a shed above the harbour. The glaze is the sea on a good day; no two are quite alike, and all of them keep tea hot through one long phone call.', 1800, 24, 'A stoneware mug with a blue glaze and steam rising from it'),
	('harbour-kettle', 'Harbour kettle', 'Enamelled steel, whistles in tune.', 'Two litres, an ash handle that stays cool, and a whistle tuned to the pitch of the ferry. Works on gas, induction and driftwood.', 4600, 9, 'A red enamel kettle with a wooden handle'),
	('storm-teapot', 'Storm teapot', 'Cast iron, for four cups.', 'Heavy enough to stay put in any weather. The strainer lifts out, the lid stays on, the tea stays warm until the rain has passed.', 3800, 14, 'A dark cast iron teapot on a small stand'),
	('lighthouse-tea', 'Lighthouse tea', 'Assam and Ceylon, 125 g tin.', 'A bright, strong breakfast tea, blended for early mornings and hard water. The tin is the old lighthouse, stripes and all.', 950, 60, 'A tea tin striped red and white like a lighthouse'),
	('heather-honey', 'Heather honey', 'From 40 hives on the west cliff.', 'Thick, amber, a little smoky. The bees fly from August until the gorse is over; we take what they can spare.', 800, 31, 'A jar of amber honey with a cloth lid'),
	('bread-board', 'Ash bread board', 'Turned from storm-fallen ash.', 'One piece of ash, oiled with linseed, with a groove that keeps the crumbs where they belong.', 3200, 7, 'A round wooden board with a loaf of bread on it'),
	('herring-towel', 'Herring tea towel', 'Linen, dries without complaint.', 'Woven in Ulster and printed by hand with a small shoal. Gets softer with every wash and never leaves fluff on a glass.', 1200, 42, 'A folded linen towel printed with blue herrings'),
	('boathouse-candle', 'Boathouse candle', 'Beeswax, forty quiet hours.', 'Beeswax and a little pine tar: it smells of a boathouse in which somebody has just been working.', 1450, 18, 'A lit candle in a glass jar');

INSERT INTO reviews (slug, author, text, keep) VALUES
	('obriens-mug', 'Ann Fletcher', 'Fits my hand, fits the dishwasher, survived the cat. What more could one want?', 1),
	('obriens-mug', 'Bob Achebe', 'Bought one, then <b>three more</b>.', 1),
	('harbour-kettle', 'Bob Achebe', 'The dog now thinks that the ferry is in the kitchen.', 1),
	('storm-teapot', 'Ann Fletcher', 'It really is still warm an hour later.', 1),
	('heather-honey', 'Ann Fletcher', 'On toast, at six in the morning, with nobody else awake.', 1);

INSERT INTO orders (id, username, slug, price, address, placed, keep) VALUES
	(1001, 'ann', 'harbour-kettle', 4600, '14 Rope Walk, Kinsale', '2 October', 1),
	(1002, 'bob', 'obriens-mug', 1800, 'Flat 3, 70 Strand Road, Sligo', '9 October', 1),
	(1003, 'ann', 'heather-honey', 800, '14 Rope Walk, Kinsale', '11 November', 1),
	(1004, 'bob', 'boathouse-candle', 1450, 'Flat 3, 70 Strand Road, Sligo', '20 November', 1);
